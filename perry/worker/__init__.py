"""The HTTP server that runs inside a workspace and keeps its sessions in memory."""
