"""The table's contract, and parsing by it: a record's bytes become a typed row or a rejection."""
