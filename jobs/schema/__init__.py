"""The table's contract, and the reading of a record by it: bytes become a typed row or a rejection."""
