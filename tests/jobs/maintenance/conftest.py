"""A Kinesis that fails as it is told to."""

from __future__ import annotations

from tests.producer.conftest import aws_environment

__all__ = ["aws_environment"]
