"""Compaction, partition moves and replay. A record on its way to the lake does not pass through here."""
