"""Files in, sessions and messages out: no HTTP, no watching, no Docker."""
