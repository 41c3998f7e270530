"""How far behind a batch was when it became final: from its ledger entry, for metrics and `movement status`."""

from __future__ import annotations

from jobs.sink.ledger import LedgerEntry


def shard_ages(entry: LedgerEntry) -> dict[str, int]:
    """By shard: how long the batch's last record of it had been on the stream when the batch became final, in ms.

    No record that the batch left unread can be older. A shard is missing where its entry does not say (older releases).
    """
    return {
        shard: max(0, int((entry.finished_at - found.arrived).total_seconds() * 1000))
        for shard, found in entry.report.shards.items()
        if found.arrived is not None
    }
