"""Tables and partitions in the Glue Data Catalog."""
