"""Deploys a packaged release: uploads it to S3 and runs the streaming job on one of three platforms.

calls            an AWS request as data: --dry-run prints it, botocore's model checks it
upload           uploads the files of a release that are not in S3 yet
job              the job as all platforms run it: script, arguments, Python environment
spark_conf       the Spark options of the submit
emr_serverless · emr · glue    how each platform starts, finds and stops the job
role_access      may the job's role read the release? answered by IAM's policy simulator
rollout          uploads, finds a running job, leaves or replaces it, starts, waits
stack            the CloudFormation stack, and the settings from its outputs
"""
