"""Entry point of the replay of raw records: processed rows are built again from the raw layer.

`spark-submit jobs/replay_raw_job.py --config FILE`; the work is in `jobs.maintenance.raw`.
"""

from jobs.maintenance.raw import main
from jobs.settings.job_main import exit_job

if __name__ == "__main__":
    exit_job(main())
