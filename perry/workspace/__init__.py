"""Docker workspaces: creating them, and keeping a worker running in each."""
