"""Docker workspaces for coding agents, with every session of theirs in one place."""

__version__ = "0.1.0"
