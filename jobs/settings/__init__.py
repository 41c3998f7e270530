"""The jobs' settings, their reference and the files that they are read from."""
