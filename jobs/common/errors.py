"""The errors that a user meets: each names the thing, the value and the remedy.

Transient errors may go away when the same step is run again; Terminal ones will not. Spark passes only an
error's text from a worker to the driver, so the text alone has to be enough to act on.
"""

from __future__ import annotations


class MovementError(Exception):
    """Base of every error that this project raises on purpose."""


class TransientError(MovementError):
    """A step failed in a way that running it again may cure: throttling, a reset, a time-out."""


class TerminalError(MovementError):
    """A step failed in a way that needs somebody to change something first."""


class ConfigurationError(TerminalError):
    """A setting, an option or the contract is wrong. Raised before anything is started."""


class IncompatibleSchemaError(ConfigurationError):
    """The contract has changed in a way that the tables, and the files that are there, cannot follow."""


class AwsAccessError(TerminalError):
    """AWS refused: no credentials, no permission, or the thing named does not exist."""


class BatchMismatchError(TerminalError):
    """A batch's counts do not add up: read = raw = processed + quarantined was violated."""


class TooManyRejectedError(TerminalError):
    """A batch has a greater share of rejected records than `sink.max_rejected_share`, and the job is to stop."""


class AlreadyRunningError(TerminalError):
    """Another process has already written what this one was about to write."""
