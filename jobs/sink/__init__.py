"""Rows → the lake: raw JSON, Parquet and quarantine in one pass, and the ledger that makes a batch final."""
