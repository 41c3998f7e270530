"""The source's errors. Each names the stream, the shard and the remedy: Spark passes only their text to the driver.

SourceError
  TransientSourceError        trying again may help: throttling, a reset, a time-out
    ThrottledError
    ExpiredIteratorError
    FutureTimeError
  TerminalSourceError         somebody has to change something first
    SourceConfigurationError  an option, a position or an offset is wrong
    StreamAccessError         no credentials, no permission, or no such stream
      StreamNotFoundError
    PositionGoneError
    DataLossError
"""

from __future__ import annotations


class SourceError(Exception):
    """Base of every error that the source raises on purpose."""


class TransientSourceError(SourceError):
    """A call failed in a way that may pass: throttling, a reset, a time-out."""


class ThrottledError(TransientSourceError):
    """Kinesis refused a call because the rate of the shard or the account is used up."""


class ExpiredIteratorError(TransientSourceError):
    """The shard iterator is older than five minutes: open a new one after the last record read."""


class FutureTimeError(TransientSourceError):
    """A time of arrival that the server's clock has not reached: nothing can have arrived then or later."""


class TerminalSourceError(SourceError):
    """The same call fails again until somebody changes something."""


class SourceConfigurationError(TerminalSourceError):
    """An option, a position or an offset is wrong."""


class StreamAccessError(TerminalSourceError):
    """AWS refused: no credentials, no permission, or the stream does not exist."""


class StreamNotFoundError(StreamAccessError):
    """There is no stream of this name, or no longer."""


class PositionGoneError(TerminalSourceError):
    """The position, or its whole shard, is no longer in the stream."""


class DataLossError(TerminalSourceError):
    """Records left the stream before they were read, and `failOnDataLoss` is true."""
