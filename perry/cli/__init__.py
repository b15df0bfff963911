"""The command line: the only part of perry that prints."""
