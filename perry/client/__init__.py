"""The host's side of the worker's HTTP API."""

import sys

# httpx brings a command line of its own, with rich and pygments, wherever those are installed; told
# that it isn't there (None in sys.modules means that), it is imported 60 ms sooner.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # typed as modules only
