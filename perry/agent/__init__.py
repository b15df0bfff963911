"""The agent daemon: one view of the host and of every workspace, and workers that stay alive."""
