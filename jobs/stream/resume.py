"""Where the query goes on: compares Spark's checkpoint with the lake's ledger before the query starts.

The ledger says which records are in the lake, the checkpoint which records Spark reads next. They part when somebody
puts a checkpoint back from a backup, trims it, empties it, or gives the job another lake. Then Spark would plan a batch
of a number that is final with other records, and skip them, or read records again that are in the lake.

- The ledger's last entry holds the source's offset. If the ledger is ahead, the checkpoint is put to that offset.
- If the lake has files of later batches, the ledger has lost entries: nothing is written or deleted.
- If nothing proves where to go on, the job stops, says how far each side is, and names the options of `--start-from`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Literal, get_args

from jobs.common.errors import ConfigurationError, TerminalError
from jobs.lake.delta import PROCESSED, last_committed_batch, open_delta
from jobs.lake.ledger import Ledger, LedgerEntry, newest_entries, queries
from jobs.lake.partition_locations import batch_of
from jobs.lake.store import AT_ONCE, Lake, parallel_map
from jobs.stream.checkpoint import Checkpoint, CheckpointState, SourceOffset

log = logging.getLogger(__name__)

StartFrom = Literal["ledger", "checkpoint", "stream"]
START_FROM: tuple[StartFrom, ...] = get_args(StartFrom)
START_FROM_HELP = (
    "only if the job asks for it: what to trust if checkpoint and lake disagree. ledger: go on after the last record "
    "in the lake. checkpoint: go on where the checkpoint ends, in a lake that does not have the batches before. "
    "stream: read from source.starting_position although the lake has records of this stream"
)
_RESTORE_ENTRIES = (
    "Restore the missing entries from the bucket's older object versions; without these, run with --start-from ledger: "
    "it deletes the files of the batches that are not in the ledger and reads their records again, if all of them are "
    "still on the stream"
)
_SHOWN = 5  # shards in an error message
_ARRIVAL_MARGIN = timedelta(hours=1)  # arrival times are approximate, and those of the servers' clocks


def align_checkpoint(
    checkpoint: Checkpoint,
    lake: Lake,
    stream: str,
    start_from: StartFrom | None = None,
    *,
    after_crash: bool,
    kept_since: Callable[[], datetime | None] = lambda: None,
) -> None:
    """Puts the checkpoint to the end of the ledger, or leaves it alone if it is there already.

    Call it with the checkpoint's lease and before the query starts. `after_crash`: whether the job before may have died
    within a batch, so that files of the batch after the last entry are its leftovers. `kept_since`: the arrival time
    from which on the stream still has all records; None: their loss is accepted. Raises TerminalError if it is unknown
    which records are in the lake, or files would be deleted whose records cannot be read again, and ConfigurationError
    if `start_from` does not apply.
    """
    state = checkpoint.state()
    query = state.query or _query_without_id(checkpoint, lake, state)
    last = None if query is None else _last_entry(Ledger(lake, query), state)
    if last is None:
        _start_without_entries(checkpoint, lake, stream, state, start_from, kept_since)
        return
    if start_from == "stream" and checkpoint.reads_again:
        log.warning("--start-from stream: query %s has started with it already, and goes on", query)
    elif start_from == "stream":
        raise ConfigurationError(
            f"--start-from stream: query {query} has already read with the checkpoint {checkpoint.uri}. Give the job "
            "an empty checkpoint (stream_job.checkpoint) to read the stream again, or leave the option out"
        )
    if start_from == "ledger":
        _go_on_after(last, checkpoint, lake, kept_since)
        return
    _align_query(checkpoint, lake, last, state, after_crash)


def same_records(entry: LedgerEntry, end: SourceOffset | None, start: SourceOffset | None) -> bool:
    """Whether the batch that the checkpoint plans from `start` to `end` has the records that `entry` names.

    `start` matters only for entries without an offset: then every shard that the batch advances must be in the entry,
    with the last record that the plan names.
    """
    if end is None:
        return False
    if entry.offset is not None:
        return _positions(entry.offset) == _positions(end)
    if not isinstance(end.get("shards"), dict):
        return True  # of the JVM connector, whose offsets older releases did not store
    before = (start or {}).get("shards", {})
    planned = {
        shard: position
        for shard, position in end["shards"].items()
        if position.partition(":")[0].isdigit() and position != before.get(shard)
    }
    read = {shard: range_.last for shard, range_ in entry.report.shards.items()}
    return all(
        end["shards"].get(shard) == "SHARD_END" or planned.get(shard, "") in (last, last.partition(":")[0])
        for shard, last in read.items()
    ) and all(shard in read for shard in planned)


def _positions(offset: SourceOffset) -> object:
    """What two plans of the same records have in common: they are made at different times."""
    return offset.get("shards", offset)


def _align_query(
    checkpoint: Checkpoint, lake: Lake, last: LedgerEntry, state: CheckpointState, after_crash: bool
) -> None:
    """For a query with a ledger. `last`: its last entry."""
    planned = -1 if state.planned is None else state.planned
    committed = -1 if state.committed is None else state.committed
    if last.batch < max(planned - 1, committed):
        raise TerminalError(
            f"the checkpoint {checkpoint.uri} is at batch {max(planned, committed)}, but the ledger of query "
            f"{last.query} in {lake.uri} ends with batch {last.batch} ({_progress(last)}): entries of the ledger were "
            f"deleted, or the lake was put back to an older state. {_RESTORE_ENTRIES}"
        )
    _refuse_lost_entries(lake, last, after_crash)
    if last.batch > planned:
        log.warning("the checkpoint %s is at batch %d, the ledger at %d", checkpoint.uri, planned, last.batch)
        _restore(checkpoint, lake, last)
        return
    start = checkpoint.offset(last.batch - 1) if last.batch else None
    if planned == last.batch > 0 and start is None:
        log.warning("%s/offsets/%d, which Spark reads, is missing or cut off", checkpoint.uri, last.batch - 1)
        _restore(checkpoint, lake, last)
        return
    if not same_records(last, checkpoint.offset(last.batch), start):
        log.warning("batch %s has other records in the checkpoint %s than in the lake", last.name, checkpoint.uri)
        _restore(checkpoint, lake, last)
        return
    if planned > last.batch and checkpoint.offset(planned) is None:
        log.warning("%s/offsets/%d is not readable: the batch is planned again", checkpoint.uri, planned)
        checkpoint.forget_after(last.batch)
    if checkpoint.delete_unreadable_commit():
        log.warning("%s/commits/%d was not readable: the batch is compared again", checkpoint.uri, committed)


def _start_without_entries(
    checkpoint: Checkpoint,
    lake: Lake,
    stream: str,
    state: CheckpointState,
    start_from: StartFrom | None,
    kept_since: Callable[[], datetime | None],
) -> None:
    """For a checkpoint whose query has no entry in this lake: a new one, or one that was used with another lake."""
    known = [found.entries[0] for found in newest_entries(lake, 1) if found.entries[0].stream == stream]
    nothing_final = state.committed is None and state.planned in (None, 0)
    where = (
        f"the checkpoint {checkpoint.uri} is empty"
        if state.is_new
        else f"the checkpoint {checkpoint.uri} is at batch {state.planned} of query {state.query or '(no metadata)'}"
    )
    if start_from == "ledger" and known:
        _go_on_after(known[0], checkpoint, lake, kept_since)
        return
    if start_from == "stream" and nothing_final:
        if known:
            log.warning("%s has records of stream %s: they are read again, as asked for", lake.uri, stream)
        checkpoint.note_reads_again()
        return
    if known:
        last = known[0]
        problem = f"{lake.uri} already has records of stream {stream}, by query {last.query} up to batch {last.batch}"
        remedy = "--start-from ledger to go on after them"
        if nothing_final:
            remedy += (
                ", or with --start-from stream to start at source.starting_position all the same, which writes records "
                "again that are in the lake"
            )
        problem += f" ({_progress(last)}). Give the job the checkpoint that it had, or run with {remedy}"
    elif start_from == "ledger":
        problem = f"the ledger in {lake.uri} has no batch of stream {stream}: there is nothing to go on from"
    elif nothing_final:
        stranger = _file_without_ledger(lake, lambda batch: batch == f"{state.query}-0")  # of its first batch
        if stranger is None:
            if state.planned == 0 and checkpoint.offset(0) is None:
                checkpoint.forget_after(-1)  # a plan that was cut off was never run
            return
        problem = _lost_ledger(lake, stranger) + (
            ". With --start-from stream it reads the stream from source.starting_position, and may write records again "
            "that are in the lake"
        )
    elif not _tells_what_was_read(checkpoint, lake, state):
        problem = (
            f"{lake.uri} has no ledger of it, and the checkpoint alone does not tell which records are in the lake: "
            f"offsets/{state.planned} is empty or missing, or the query's id is lost and the lake has files of a "
            "query. Bring the lake back, or restore the checkpoint from a backup. To read the stream again, give the "
            "job an empty lake (`lake`) and an empty checkpoint (stream_job.checkpoint)"
        )
    elif (stranger := _file_without_ledger(lake, lambda batch: batch.rpartition("-")[0] == state.query)) is not None:
        problem = _lost_ledger(lake, stranger)
    elif start_from == "checkpoint":
        _go_on_without_ledger(checkpoint, lake, state)
        return
    else:
        problem = (
            f"{lake.uri} has no ledger of it: the lake was emptied or moved, or the checkpoint is of another lake. "
            "Bring the lake back (`lake`, or the bucket's older object versions), or run with --start-from checkpoint "
            "to go on after the checkpoint's position: this lake then lacks all earlier records. To read the stream "
            "again, give the job an empty checkpoint (stream_job.checkpoint)"
        )
    option = f"--start-from {start_from} does not apply: " if start_from else ""
    raise (ConfigurationError if start_from else TerminalError)(f"{option}{where}, but {problem}")


def _refuse_lost_entries(lake: Lake, last: LedgerEntry, after_crash: bool) -> None:
    """Raises TerminalError if the lake has files of batches that the ledger has lost, without listing every table.

    That is so after the ledger, or ledger and checkpoint, were put back from a backup. Each record of a later batch
    arrived after those of the same shard in `last`, or after `last` was planned. So its raw file, whose partition is
    the hour of arrival, is not in an earlier one.
    """
    batches = {batch_of(path) or "" for path in _raw_files_since(lake, last)}
    numbers = [int(number) for query, _, number in (name.rpartition("-") for name in batches) if query == last.query]
    later = [number for number in sorted(numbers) if number > last.batch + (1 if after_crash else 0)]
    if later:
        raise TerminalError(
            f"{lake.uri}/raw has files of batch {last.query}-{later[-1]}, but the ledger ends with batch {last.batch} "
            f"({_progress(last)}): entries of the ledger were deleted, or the ledger was put back to an older state. "
            f"{_RESTORE_ENTRIES}"
        )
    _check_delta_table(lake, PROCESSED, last.query, last.batch)


def _raw_files_since(lake: Lake, last: LedgerEntry) -> Iterable[str]:
    """The raw files that can hold records of batches after `last`. All, if arrival times are unknown."""
    arrivals = [range_.arrived for range_ in last.report.shards.values()]
    if None in arrivals:  # an entry of the JVM connector
        return (path for path, _ in lake.list("raw/"))
    since = min([last.started_at, *(at for at in arrivals if at is not None)]) - _ARRIVAL_MARGIN
    day, hour = f"ingest_date={since:%Y-%m-%d}", f"hour={since:%H}"
    days = [name for name in lake.folders("raw/") if name >= day]
    folders = [
        f"raw/{name}/{each}/" for name in days for each in lake.folders(f"raw/{name}/") if name > day or each >= hour
    ]
    files = parallel_map(lambda folder: [path for path, _ in lake.list(folder)], folders)
    return (path for found in files for path in found)


def _tells_what_was_read(checkpoint: Checkpoint, lake: Lake, state: CheckpointState) -> bool:
    """Whether Spark can go on from the checkpoint alone, without a ledger: it reads the last two offsets.

    If the query's id is lost, Spark gives it another one, under which the job would not find the files that later
    batches may have in the lake.
    """
    if state.planned is None or (state.query is None and next(iter(lake.list("raw/")), None) is not None):
        return False
    numbers = (number for number in (state.planned, state.planned - 1) if number >= 0)
    return all(checkpoint.offset(number) is not None for number in numbers)


def _go_on_without_ledger(checkpoint: Checkpoint, lake: Lake, state: CheckpointState) -> None:
    """Lets Spark go on where the checkpoint ends. Deletes the files of batches that it will write again."""
    checkpoint.delete_unreadable_commit()  # Spark then runs its batch again
    now = checkpoint.state()
    if now.query is not None and now.planned is not None:
        batch = now.planned if now.committed == now.planned else now.planned - 1
        _check_readers(lake, now.query, batch)
        Ledger(lake, now.query).remove_leftovers(batch + 1)
    log.warning("the ledger in %s begins after batch %s of the checkpoint %s", lake.uri, now.committed, checkpoint.uri)


def _lost_ledger(lake: Lake, file: str) -> str:
    return (
        f"{lake.uri} has files such as {file}, but no ledger of their query: it was deleted, or a first batch was "
        "killed or is being written. Restore _ledger/ from the bucket's older object versions, or give the job an "
        "empty lake (`lake`)"
    )


def _file_without_ledger(lake: Lake, is_leftover: Callable[[str], bool]) -> str | None:
    """A file with records of a query that has no ledger in this lake, if there is one.

    `is_leftover`: whether the checkpoint accounts for the files of a batch, such as `6b9a4e276401-0`.
    """
    known = set(queries(lake))
    for path, _ in lake.list("raw/"):
        batch = batch_of(path)
        if batch is None and known:
            continue  # of unknown origin
        if not is_leftover(batch or "") and (batch or "").rpartition("-")[0] not in known:
            return path
    return None


def _query_without_id(checkpoint: Checkpoint, lake: Lake, state: CheckpointState) -> str | None:
    """The query of a checkpoint that has lost `metadata`: the one whose ledger has the checkpoint's newest batches.

    Writes `metadata` again. Returns None if the checkpoint is empty, or no query in this lake is the one.
    """
    batch = max(-1 if state.planned is None else state.planned, -1 if state.committed is None else state.committed)
    for query in queries(lake) if batch >= 0 else []:
        for number in range(batch, max(batch - 2, -1), -1):
            entry = Ledger(lake, query).entry(number)
            if entry is None or not (entry.offset or entry.report.shards):
                continue  # an old entry of the JVM connector tells nothing
            if same_records(entry, checkpoint.offset(number), checkpoint.offset(number - 1)):
                checkpoint.restore_query(query)
                log.warning("%s/metadata was missing: it was query %s", checkpoint.uri, query)
                return query
    return None


def _last_entry(ledger: Ledger, state: CheckpointState) -> LedgerEntry | None:
    """The query's last entry. Lists the ledger only if the checkpoint does not tell its end."""
    if state.planned is not None:
        near = parallel_map(ledger.entry, range(max(0, state.planned - 1), state.planned + AT_ONCE))
        found = [entry for entry in near if entry is not None]
        if found and found[-1].batch <= state.planned:
            return found[-1]
    numbers = ledger.numbers()
    return ledger.entry(numbers[-1]) if numbers else None


def _go_on_after(
    last: LedgerEntry, checkpoint: Checkpoint, lake: Lake, kept_since: Callable[[], datetime | None]
) -> None:
    """For --start-from ledger: `_restore`, unless the stream may have lost records that it would take from the lake."""
    leftovers = [path for path in Ledger(lake, last.query).leftovers(last.batch + 1) if path.startswith("raw/")]
    since = kept_since() if leftovers else None
    if since is not None:
        # The partition of a raw file is the hour in which its records arrived.
        oldest_complete = f"raw/ingest_date={since:%Y-%m-%d}/hour={since:%H}/~"
        gone = sorted(path for path in leftovers if path < oldest_complete)
        if gone:
            raise TerminalError(
                f"--start-from ledger would delete {lake.uri}/{gone[0]} (and {len(leftovers) - 1} more raw files of "
                f"batches after {last.name}), but the stream has all records only since {since:%Y-%m-%d %H:%M} UTC: "
                "they could not be read again. Restore the missing entries of _ledger/ from the bucket's older object "
                "versions. To go on without these records, set source.fail_on_data_loss=false"
            )
    _restore(checkpoint, lake, last)


def _restore(checkpoint: Checkpoint, lake: Lake, last: LedgerEntry) -> None:
    """Puts the checkpoint to the end of the ledger, whose last entry is `last`."""
    ledger = Ledger(lake, last.query)
    if last.offset is None:
        raise TerminalError(
            f"the checkpoint {checkpoint.uri} does not fit the ledger in {lake.uri}, and batch {last.name} was written "
            f"by a release that did not store where it ended. It read up to {_progress(last)}. Bring the checkpoint "
            "back as it was; or run with an empty checkpoint (stream_job.checkpoint), --start-from stream and the "
            "positions that `movement status --positions` prints (docs/operations.md, Restore)"
        )
    _check_readers(lake, last.query, last.batch)
    deleted = ledger.remove_leftovers(last.batch + 1)
    before = ledger.entry(last.batch - 1) if last.batch else None
    checkpoint.restore(last.query, last.batch, last.offset, before.offset if before else None)
    log.warning(
        "the query goes on after batch %s, the last one in the ledger (%s); deleted %d files of batches after it",
        last.name,
        _progress(last),
        len(deleted),
    )


def _check_readers(lake: Lake, query: str, batch: int) -> None:
    """Raises TerminalError if a Delta table has later batches of the query: they cannot be taken out of it."""
    for folder in (PROCESSED, *(f"gold/{name}" for name in lake.folders("gold/"))):
        _check_delta_table(lake, folder, query, batch)


def _check_delta_table(lake: Lake, folder: str, query: str, batch: int) -> None:
    found = last_committed_batch(open_delta(f"{lake.uri}/{folder}"), query)
    if found > batch:
        remedy = (
            "Restore the ledger's entries from the bucket's older object versions"
            if folder == PROCESSED
            else f"Delete {lake.uri}/gold and run `movement gold` after this job: it is computed again"
        )
        raise TerminalError(
            f"{lake.uri}/{folder} has the rows of batch {query}-{found}, but the job goes on after batch "
            f"{batch}: reading the records again would double them. {remedy}"
        )


def _progress(entry: LedgerEntry) -> str:
    """The positions that an entry tells, for an error message."""
    positions = (entry.offset or {}).get("shards") or {
        shard: range_.last for shard, range_ in entry.report.shards.items()
    }
    shown = {shard: positions[shard] for shard in sorted(positions)[:_SHOWN]}
    more = f" and {len(positions) - _SHOWN} more shards" if len(positions) > _SHOWN else ""
    return f"finished {entry.finished_at:%Y-%m-%d %H:%M:%SZ}, positions {json.dumps(shown)}{more}"
