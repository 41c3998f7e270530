"""The lake's tables and partitions in the Glue Data Catalog."""
