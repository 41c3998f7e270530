"""Records that the limit of new partitions kept out count on the stream's side of the parity check, as rows."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa

from jobs.lake.store import FolderLake
from jobs.parity.kept_out import ReadKeptOut, kept_out_files
from tests.helpers.replay_lakes import DAY, Bad, reject
from tests.helpers.samples import MEAN, TRAVEL_TIMES, good

LIMIT = "too_many_partitions"
COLUMNS = (*(name for name, _, _ in TRAVEL_TIMES.data_columns), "arrival_time")


def test_the_rows_are_those_of_the_records_and_of_no_other_rejection(tmp_path: Path) -> None:
    lake = FolderLake(str(tmp_path))
    changed = good(City="d", **{MEAN: -1})  # the contract rejects it by now
    reject(lake, 1, [Bad(b"x")])
    (path,) = reject(
        lake,
        2,
        [Bad(good(City="c"), reason=LIMIT), Bad(b"x"), Bad(good(n=1), reason=LIMIT), Bad(changed, reason=LIMIT)],
    )
    assert kept_out_files(str(tmp_path)) == [path]
    read = pickle.loads(pickle.dumps(ReadKeptOut(str(tmp_path), TRAVEL_TIMES, COLUMNS)))
    (rows,) = read(iter([pa.record_batch({"path": [path]})]))
    assert rows.schema.names == list(COLUMNS)
    assert [(row["city"], row["rescued_data"], row["arrival_time"]) for row in rows.to_pylist()] == [
        ("c", None, DAY),
        ("Paris", '{"n":1}', DAY),
    ]
