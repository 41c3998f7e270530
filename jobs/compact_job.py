"""Entry point of compaction: many small files of a partition become few.

`spark-submit jobs/compact_job.py --config FILE`; the work is in `jobs.maintenance.compact`.
"""

from jobs.maintenance.compact import main
from jobs.settings.job_main import exit_job

if __name__ == "__main__":
    exit_job(main())
