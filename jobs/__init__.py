"""What Spark runs: `*_job.py` are the entry points of spark-submit and Glue, the folders are the stages."""
