"""Sends CSV rows and posted JSON to the Kinesis stream. `produce` serves `movement produce`, `api` `movement serve`.

The modules in a record's order: `csv_reader`, `record_encoder`, `send_queue`, `sender`, `put_records`.
"""
