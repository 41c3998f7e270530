"""A batch's last look at the layout: before it becomes final, its files are in every live location of their partition.

The files were written to where the partitions lay when the batch began. Who moves a partition announces the next
location first and lists the current one afterwards: a file that was there by then is in that list, and one that was
not finds the announcement here. So no row is left behind (docs/adr/0007).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from jobs.contract.errors import TransientError
from jobs.contract.faults import point
from jobs.sink.lake import Lake
from jobs.sink.layout import Layout, LayoutFile
from jobs.sink.report import Kind, Report

_COPIES = 16  # at once


def settle(lake: Lake, layouts: LayoutFile, report: Report, table: Kind, hold: Callable[[], None]) -> Layout:
    """Copies the batch's files of `table` to the live locations that lack them; the layout that was found.

    `report` then names the files where their partitions lie. One request while nothing moves. `hold` raises where
    another job has taken over; call the ledger's commit next.
    """
    files = [file for file in report.files if file.kind == table]
    there = {file.path for file in files}
    while True:
        # Read anew after each copying: only a reading with nothing lacking says that nothing is.
        layout = layouts.read()
        lacking = [
            (file.path, location + _name(file.path))
            for file in files
            for location in layout.place(file.partition).live
            if location + _name(file.path) not in there
        ]
        if not lacking:
            break
        hold()
        copy_all(lake, lacking)
        there.update(target for _, target in lacking)
        point("settle.copied")
    report.files = sorted(
        (
            msgspec.structs.replace(file, path=layout.place(file.partition).current + _name(file.path))
            if file.kind == table
            else file
            for file in report.files
        ),
        key=lambda file: file.path,
    )
    return layout


def copy_all(lake: Lake, pairs: list[tuple[str, str]]) -> None:
    """Copies files, source → target. Raises TransientError where a source is gone."""
    with ThreadPoolExecutor(_COPIES) as copying:
        for (source, target), found in zip(pairs, copying.map(lambda pair: lake.copy(*pair), pairs), strict=True):
            if not found:
                raise TransientError(
                    f"copy {lake.uri}/{source} to {target}: the file is gone; another job has deleted it. Start again"
                )


def _name(path: str) -> str:
    return path.rpartition("/")[2]
