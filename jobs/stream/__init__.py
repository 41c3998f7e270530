"""The streaming job: each micro-batch is read, written, registered and entered in the ledger, in this order."""
