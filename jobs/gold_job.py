"""Entry point of the gold job: processed rows to Delta tables.

`spark-submit jobs/gold_job.py --config FILE`; the work is in `jobs.gold.job`.
"""

from jobs.gold.job import main
from jobs.settings.job_main import exit_job

if __name__ == "__main__":
    exit_job(main())
