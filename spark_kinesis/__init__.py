"""A Kinesis source for Spark Structured Streaming, in Python: no jar, no metadata store, exact ranges.

    from jobs.source.kinesis import KinesisDataSource
    spark.dataSource.register(KinesisDataSource)
    rows = spark.readStream.format("kinesis").option("streamName", "my-stream").load()

A batch is planned on the driver (`planner`) as one range of sequence numbers per shard, stands in Spark's own
checkpoint (`offset`), and is read by the workers (`reader`). See docs/kinesis-source.md.
"""

from spark_kinesis.data_source import KinesisDataSource
from spark_kinesis.offset import Offset, Position
from spark_kinesis.options import KinesisOptions

__all__ = ["KinesisDataSource", "KinesisOptions", "Offset", "Position"]
