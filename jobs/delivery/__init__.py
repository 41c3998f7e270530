"""The batch path's job: Firehose's delivery files become rows of `processed_batch`."""
