"""Entry point of the gold job: processed rows to Delta tables.

`spark-submit jobs/gold_job.py --config FILE`; the work is in `jobs.gold.job`.
"""

from jobs.common.job_main import exit_job
from jobs.gold.job import main

if __name__ == "__main__":
    exit_job(main())
