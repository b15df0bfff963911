"""The label of what tests make on an engine, so that all of it can be found and removed."""

LABEL = "perry.test"
"""Marks every image, container and network of a test run that isn't perry's own."""
