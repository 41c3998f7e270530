"""The command `movement`: one module for each command, named as it is typed."""
