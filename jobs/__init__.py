"""The Spark jobs: `*_job.py` are the entry points for spark-submit and Glue; the folders are the stages."""
