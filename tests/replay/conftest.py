"""What the replay's tests share: lakes of both kinds, and a Kinesis that fails as it is told to."""

from __future__ import annotations

from tests.producer.conftest import aws_environment
from tests.sink.conftest import _moto, folder_lake, lake, s3_lake

__all__ = ["_moto", "aws_environment", "folder_lake", "lake", "s3_lake"]
