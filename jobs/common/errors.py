"""The errors that users see. Each message names the thing, the value and the remedy.

    MovementError
    ├── TransientError                running the same step again may succeed
    └── TerminalError                 somebody has to change something first
        ├── ConfigurationError        a setting, an option or the contract is wrong
        │   └── IncompatibleSchemaError   existing tables cannot follow the changed contract
        ├── AwsAccessError            no credentials, no permission, or no such resource
        ├── BatchMismatchError        the counts of a batch, or its ranges, do not match
        ├── TooManyRejectedError      too many rejected records, and the job is set to stop
        └── AlreadyRunningError       another process does the same work

Loops that retry, such as `jobs.common.retry` and `movement gold --follow`, repeat on TransientError and stop on
TerminalError. The Kinesis source has a tree of its own (`spark_kinesis.errors`); `jobs.stream` translates it. Spark
passes only an error's text from a worker to the driver, so the text alone must be enough to act on.
"""

from __future__ import annotations


class MovementError(Exception):
    """Base of every error that this project raises on purpose."""


class TransientError(MovementError):
    """A step failed for a reason that may pass, such as throttling, a broken connection or a time-out.

    Start the job or command again; if it keeps failing, look at the service that the message names.
    """


class TerminalError(MovementError):
    """A step fails again until somebody changes something. The message says what."""


class ConfigurationError(TerminalError):
    """A setting, an option or the contract is wrong. Raised before anything is started.

    Correct the value that the message names. Commands and jobs exit with code 2.
    """


class IncompatibleSchemaError(ConfigurationError):
    """The contract has changed in a way that existing tables and files cannot follow. Nothing has been changed.

    Take the change back, or give the new contract a lake and a database of its own (docs/evolution.md).
    """


class AwsAccessError(TerminalError):
    """AWS refused a request: no credentials, no permission, or the resource does not exist.

    Check credentials, the role's policy, and the name, region and account of the resource.
    """


class BatchMismatchError(TerminalError):
    """A micro-batch does not fit the ledger: read = raw = processed + quarantined is violated, or its ranges differ.

    Do not delete the ledger. Check that the checkpoint belongs to this lake; otherwise report a bug.
    """


class TooManyRejectedError(TerminalError):
    """The share of rejected records exceeds `sink.max_rejected_share`, and `sink.fail_on_max_rejected_share` is true.

    The micro-batch is not committed. Correct the contract or raise the limit, and start the job again.
    """


class AlreadyRunningError(TerminalError):
    """Another process holds the lease, or has written the file that this process was about to write.

    Stop one of the two. The message says where the other one runs.
    """
