"""The monthly bill of a stream, from a dated price file."""
