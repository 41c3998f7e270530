"""Entry point of the parity check: processed against processed_batch, row for row.

`spark-submit jobs/parity_job.py --config FILE`; the work is in `jobs.parity.job`.
"""

from jobs.parity.job import main
from jobs.settings.job_main import exit_job

if __name__ == "__main__":
    exit_job(main())
