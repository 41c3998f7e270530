"""Gold tables (Delta), computed from the processed rows of the ledger's batches."""
