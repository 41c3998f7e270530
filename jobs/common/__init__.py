"""What every stage may import: errors, AWS clients, retries, times, logging, the Spark session."""
