"""Tables and partitions → the Glue Data Catalog. Every call is safe to repeat."""
