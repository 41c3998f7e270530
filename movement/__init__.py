"""The `movement` command: wires producer, jobs and the embedded AWS for a person at a terminal."""
