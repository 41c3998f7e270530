"""The batch path's two Lambda functions. They need only boto3 and are configured by environment variables.

    crawler_trigger    S3 event → SQS → StartCrawler
    gluejob_trigger    the crawler's EventBridge event → SQS → StartJobRun
    sqs_batch          what both share

The handlers are `lambdas.crawler_trigger.handler` and `lambdas.gluejob_trigger.handler`. Their event source mappings
need `FunctionResponseTypes: [ReportBatchItemFailures]`.
"""
