"""What may be wrong with this machine, the engine and the workspaces, told as findings."""
