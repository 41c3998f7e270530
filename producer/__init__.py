"""Records onto the stream: `csv_reader` → `record_encoder` → `send_queue` → `put_records`, driven by `run`.

`produce` is what `movement produce` does, `api` what `movement serve` does.
"""
