"""Shared by all stages: errors, AWS clients, retries, times, logging, the Spark session."""
