"""Entry point of the streaming job: Kinesis to raw, processed and quarantine files, Glue partitions and ledger.

`spark-submit jobs/stream_job.py --config FILE`; the work is in `jobs.stream.job`.
"""

from jobs.settings.job_main import exit_job
from jobs.stream.job import main

if __name__ == "__main__":
    exit_job(main())
