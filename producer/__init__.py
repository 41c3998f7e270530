"""CSV rows and posted JSON → Kinesis: csv_rows → records → outbox → put_request, with put_records driving them.

May import `jobs.common`, and nothing else of ours.
"""
