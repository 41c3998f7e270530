"""Sends rows of files and posted JSON to the stream. `produce` serves `movement produce`, `api` `movement serve`.

The modules in a record's order: `input_files`, `readers` (of CSV, JSON lines and Parquet), `record_encoder` or
`json_encoder`, `send_queue`, `sender`, `put_records`.
"""
