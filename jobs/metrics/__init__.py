"""The streaming job's metrics: a ledger entry becomes CloudWatch metrics, EMF lines or log fields."""
