"""`movement deploy …`: a packaged release → S3 → the streaming job, running, on one of three platforms.

calls            an AWS request as data: printed by --dry-run, checked against botocore's model, sent
upload           the release's files, those that are not there yet
job              what runs, the same everywhere: script, arguments, Python environment
emr_serverless · emr · glue    how each platform starts, finds and stops it
rollout          upload, look for a running job, leave or replace it, start, wait
"""
