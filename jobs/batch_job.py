"""Entry point of the batch path's job: delivery files to processed_batch.

`spark-submit jobs/batch_job.py --config FILE`; the work is in `jobs.delivery.job`.
"""

from jobs.delivery.job import main
from jobs.settings.job_main import exit_job

if __name__ == "__main__":
    exit_job(main())
