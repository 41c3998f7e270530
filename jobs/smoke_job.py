"""Entry point of the smoke run: proves on the real platform, as the real role, what the streaming job needs.

`movement deploy smoke` starts it and prints what it found; the work is in `jobs.stream.smoke`.
"""

from jobs.settings.job_main import exit_job
from jobs.stream.smoke import main

if __name__ == "__main__":
    exit_job(main())
