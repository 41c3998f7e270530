"""One Spark task: a micro-batch's rows become raw, processed and quarantine files."""
