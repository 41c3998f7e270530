"""What a job reports about itself: a ledger entry becomes CloudWatch metrics, EMF lines or log lines."""
