"""Entry point of compaction: many small files of a partition become few.

`spark-submit jobs/compact_job.py --config FILE`; the work is in `jobs.maintenance.compact`.
"""

from jobs.common.job_main import exit_job
from jobs.maintenance.compact import main

if __name__ == "__main__":
    exit_job(main())
