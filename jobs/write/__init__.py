"""One Spark task: a micro-batch's records become raw, processed and quarantine files."""
