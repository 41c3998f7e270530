"""processed against processed_batch: the same rows, as often, partition by partition."""
