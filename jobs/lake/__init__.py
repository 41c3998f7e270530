"""What a lake consists of: object store, ledger, lease, partition locations, table formats."""
