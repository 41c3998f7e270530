"""The batch path's two Lambda functions: small, boto3 alone, configured by environment variables.

    crawler_trigger    S3 event, through SQS             → StartCrawler
    gluejob_trigger    the crawler's EventBridge event, through SQS   → StartJobRun

`sqs_batch` is what they share. The handlers are `lambdas.crawler_trigger.handler` and
`lambdas.gluejob_trigger.handler`; their event source mappings need `FunctionResponseTypes: [ReportBatchItemFailures]`.
"""
