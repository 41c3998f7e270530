"""A Kinesis source for Spark Structured Streaming, in Python: no jar, no metadata store, exact ranges.

    from spark_kinesis import KinesisDataSource
    spark.dataSource.register(KinesisDataSource)
    rows = spark.readStream.format("kinesis").option("streamName", "my-stream").load()

The driver plans a batch as one range of sequence numbers for each shard (`planner`). Spark stores its end in the
checkpoint (`offset`), and the workers read the ranges (`reader`). See docs/kinesis-source.md.
"""

from spark_kinesis.data_source import KinesisDataSource
from spark_kinesis.offset import Offset, Position
from spark_kinesis.options import KinesisOptions

__all__ = ["KinesisDataSource", "KinesisOptions", "Offset", "Position"]
