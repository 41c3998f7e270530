"""Bytes → typed rows or a rejection, in Arrow batches, the same for stream, batch path, producer and API."""
