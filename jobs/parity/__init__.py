"""The check that the stream and the batch path hold the same rows."""
