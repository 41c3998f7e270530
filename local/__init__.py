"""The embedded AWS of a laptop: moto in the background, and what moto lacks.

    server             starts and stops moto's process (emulator), and says where it is
    resources          the stream, the bucket and the database that the settings name
    delivery_stream    stream → delivery/                        (stands in for Firehose)
    events             S3 and EventBridge events → queue → handlers   (for Lambda's triggers)
    crawler            delivery/ → Glue table and partitions     (for a Glue crawler)
    job_runner         jobs/batch_job.py as a Glue job run       (for Glue's job service)

Imports nothing of ours but `jobs.common`. Nothing here runs on AWS.
"""
