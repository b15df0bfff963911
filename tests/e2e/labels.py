"""The label of what tests make on an engine, so that all of it can be found and removed."""

import os

LABEL = f"perry.test.{os.getpid()}"
"""Marks every container and network of this run of the tests that isn't perry's own."""
