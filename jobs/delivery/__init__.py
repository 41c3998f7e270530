"""Firehose's files under `delivery/` → records: found through the catalog, read, and split where one record ends."""
