"""The host's side of the worker's HTTP API."""
