"""The settings, their reference, and the command line and files that they come from."""
