"""How fast each shard accepts records, learned from its throttles. `send_queue` uses it. It does no I/O.

A shard accepts 1,000 records/s and 1 MB/s. Above that Kinesis throttles single records, and an immediate retry
only takes capacity from other records. A shard that throttles therefore gets a rate. Each further throttle cuts the
rate, and it grows again in between. A shard that never throttled costs nothing. The Kinesis Producer Library does the
same with a token bucket for each shard:
https://docs.aws.amazon.com/streams/latest/dev/kinesis-producer-adv-retries-rate-limiting.html
"""

from __future__ import annotations

from dataclasses import dataclass

from producer.stream_info import ShardMap

# https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html
SHARD_RECORDS_PER_SECOND = 1000
SHARD_BYTES_PER_SECOND = 1024 * 1024

# The rate is cut by this factor if all records of a request were throttled, by a tenth of it if a tenth was.
_DEEPEST_CUT = 0.5
_GROWTH_PER_SECOND = 0.1 * SHARD_RECORDS_PER_SECOND
_QUIET_SECONDS = 5.0
_QUIET_GROWTH_PER_SECOND = 0.5
# Requests that are in flight together are throttled together: they count as one throttle.
_CUT_AT_MOST_EVERY = 0.25
# Lowest rate in records/s. Below it, requests are so small that their size no longer explains a throttle.
_SLOWEST = 50.0
# Tokens of this many seconds may be spent at once.
_BURST_SECONDS = 0.2
# A shard that reaches this rate without a throttle is no longer limited.
_FREE_ABOVE = 20 * SHARD_RECORDS_PER_SECOND
WHOLE_STREAM = "(stream)"


@dataclass(slots=True)
class _Limit:
    rate: float
    tokens: float
    at: float
    last_cut: float

    def refill(self, now: float) -> None:
        elapsed = max(0.0, now - self.at)
        self.at = now
        grown = self.rate * _QUIET_GROWTH_PER_SECOND if now - self.last_cut > _QUIET_SECONDS else _GROWTH_PER_SECOND
        self.rate += grown * min(elapsed, 1.0)
        self.tokens = min(max(1.0, self.rate * _BURST_SECONDS), self.tokens + self.rate * elapsed)


class ShardRates:
    """The learned rates in records/s. While `shards` is None, one rate serves the whole stream."""

    def __init__(self) -> None:
        self.shards: ShardMap | None = None
        self._limits: dict[str, _Limit] = {}

    @property
    def active(self) -> bool:
        """Whether any shard is limited now."""
        return bool(self._limits)

    def shard_of(self, key: str) -> str:
        """The shard that the partition key goes to; WHOLE_STREAM while the shards are unknown."""
        return self.shards.shard_of(key) if self.shards is not None else WHOLE_STREAM

    def throttled(self, shard: str, share: float, record_bytes: float, now: float) -> None:
        """The shard throttled `share` (0 to 1) of a request's records, whose average size is `record_bytes`."""
        limit = self._limits.get(shard)
        if limit is None:
            # The first throttle: start from the limit that AWS documents.
            rate = min(SHARD_RECORDS_PER_SECOND, SHARD_BYTES_PER_SECOND / max(record_bytes, 1.0))
            self._limits[shard] = _Limit(max(_SLOWEST, rate), 0.0, now, now)
        elif now - limit.last_cut >= _CUT_AT_MOST_EVERY:
            limit.refill(now)
            limit.rate = max(_SLOWEST, limit.rate * (1 - _DEEPEST_CUT * share))
            limit.tokens = 0.0
            limit.last_cut = now

    def admit(self, shard: str, now: float) -> bool:
        """Whether one more record may be sent to the shard now. Takes a token if so."""
        limit = self._limits.get(shard)
        if limit is None:
            return True
        limit.refill(now)
        if limit.rate > _FREE_ABOVE:
            del self._limits[shard]
            return True
        if limit.tokens < 1:
            return False
        limit.tokens -= 1
        return True

    def ready_at(self, shard: str, now: float) -> float:
        """The time at which the shard has enough tokens. An earlier look would make tiny requests."""
        limit = self._limits.get(shard)
        if limit is None:
            return now
        wanted = max(1.0, limit.rate * _BURST_SECONDS / 2)
        return now + max(0.0, wanted - limit.tokens) / limit.rate

    def limits(self) -> dict[str, float]:
        """The limited shards and their rates in records/s."""
        return {shard: limit.rate for shard, limit in self._limits.items()}
