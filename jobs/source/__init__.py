"""Stage 1: records come from a Kinesis stream and go on as rows, to `jobs.transform`.

`kinesis/` is a Spark data source of its own, usable without the rest of this project; `connectors` chooses
between it and EMR's JVM connector and gives both the same columns.
"""
