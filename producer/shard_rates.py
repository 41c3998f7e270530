"""How fast each shard takes records, learned from its throttles. Asked by: `queue`. No I/O, no clock of its own.

A shard takes 1,000 records/s and 1 MB/s; past that Kinesis throttles record by record, and sending the same
records again at once only takes room from others. So a shard that throttles gets a rate, which is cut at each
further throttle and grows again in between (additive increase would find AWS's limit as well, but slower). A
shard that never throttled costs nothing. The Kinesis Producer Library does the same with a token bucket a shard:
https://docs.aws.amazon.com/streams/latest/dev/kinesis-producer-adv-retries-rate-limiting.html
"""

from __future__ import annotations

from dataclasses import dataclass

from producer.stream_info import ShardMap

# https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html
SHARD_RECORDS_PER_SECOND = 1000
SHARD_BYTES_PER_SECOND = 1024 * 1024

# A cut where everything was refused; where a tenth was, it is a tenth of this.
_DEEPEST_CUT = 0.5
_GROWTH_PER_SECOND = 0.1 * SHARD_RECORDS_PER_SECOND
_QUIET_SECONDS = 5.0
_QUIET_GROWTH_PER_SECOND = 0.5
# Requests that were under way together are throttled together: that is one throttle, not many.
_CUT_AT_MOST_EVERY = 0.25
# Slower than this, requests become so small that throttling would no longer follow from what is sent.
_SLOWEST = 50.0
# Tokens for this long may be spent at once.
_BURST_SECONDS = 0.2
# A shard that came so far without a throttle is no longer slowed down.
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
    """The learned rates, in records/s. `shards` is None until somebody has looked them up: then one rate serves all."""

    def __init__(self) -> None:
        self.shards: ShardMap | None = None
        self._limits: dict[str, _Limit] = {}

    @property
    def active(self) -> bool:
        """Whether any shard is slowed down now."""
        return bool(self._limits)

    def shard_of(self, key: str) -> str:
        """The shard that the partition key goes to, as far as is known."""
        return self.shards.shard_of(key) if self.shards is not None else WHOLE_STREAM

    def throttled(self, shard: str, share: float, record_bytes: float, now: float) -> None:
        """Learns that the shard refused `share` (0 to 1) of a request's records, of this average size."""
        limit = self._limits.get(shard)
        if limit is None:
            # Where nothing is known yet: what AWS says a shard takes.
            rate = min(SHARD_RECORDS_PER_SECOND, SHARD_BYTES_PER_SECOND / max(record_bytes, 1.0))
            self._limits[shard] = _Limit(max(_SLOWEST, rate), 0.0, now, now)
        elif now - limit.last_cut >= _CUT_AT_MOST_EVERY:
            limit.refill(now)
            limit.rate = max(_SLOWEST, limit.rate * (1 - _DEEPEST_CUT * share))
            limit.tokens = 0.0
            limit.last_cut = now

    def admit(self, shard: str, now: float) -> bool:
        """Whether the shard may be sent one more record now; takes a token if so."""
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
        """When the shard will have room for a fifth of a second's records again: asking sooner makes tiny requests."""
        limit = self._limits.get(shard)
        if limit is None:
            return now
        wanted = max(1.0, limit.rate * _BURST_SECONDS / 2)
        return now + max(0.0, wanted - limit.tokens) / limit.rate

    def limits(self) -> dict[str, float]:
        """Shard → records/s of those that are slowed down."""
        return {shard: limit.rate for shard, limit in self._limits.items()}
