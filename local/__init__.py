"""The embedded AWS for a laptop: moto in a background process, and local versions of services that moto only stubs.

    server             starts, finds and stops moto's process, whose code is `emulator`
    resources          creates the stream, the bucket and the database that the settings name
    delivery_stream    Firehose: stream → delivery/
    events             SQS event source mappings: S3 and EventBridge events → queue → Lambda handlers
    crawler            a Glue crawler: delivery/ → Glue table and partitions
    job_runner         Glue's job service: runs jobs/batch_job.py
    batch_path         all of these, connected as on AWS
    moto_*             patches of moto where it differs from AWS

Nothing here runs on AWS.
"""
