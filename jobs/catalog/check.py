"""Compares the catalog with the lake, and makes the catalog name every partition where its files are.

Input: the folders of the tables, the layout of moved partitions, the ledger. Needs no lease and no Spark, and deletes
no file. Safe beside running jobs and compaction (docs/adr/0007).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.glue_calls import chunks
from jobs.catalog.schema_evolution import normalized_location
from jobs.catalog.tables import LakeTable, batch_tables, stream_tables
from jobs.common.aws import client
from jobs.lake.ledger import BATCH_PATH, final_batches, queries
from jobs.lake.partition_locations import Layout, batch_of, partitions_in_lake
from jobs.lake.store import Lake, lake_at, parallel_map
from jobs.schema.table import load_contract
from jobs.settings.settings import Settings

# Partitions that are looked up, or repaired, between two reports of progress.
GROUP = 500

# Called at each step: partitions done, partitions in all, the current step.
OnStep = Callable[[int, int, str], None]


@dataclass
class TableDifferences:
    """Where the catalog and the lake differ for one table.

    missing        the table is not in the catalog
    partitions     number of partitions in the catalog
    unregistered   partitions with files of final batches that the catalog lacks: queries do not see their rows
    elsewhere      by partition, the location that the catalog names although its files are in another folder
    empty          partitions in the catalog without a file in the lake
    """

    table: str
    missing: bool = False
    partitions: int = 0
    unregistered: list[str] = field(default_factory=list)
    elsewhere: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """The number of differences."""
        return int(self.missing) + len(self.unregistered) + len(self.elsewhere) + len(self.empty)

    def confirmed_by(self, later: TableDifferences) -> TableDifferences:
        """The differences that a later look has found too."""
        unregistered, empty = set(later.unregistered), set(later.empty)
        return TableDifferences(
            self.table,
            self.missing and later.missing,
            later.partitions,
            [name for name in self.unregistered if name in unregistered],
            {name: at for name, at in self.elsewhere.items() if later.elsewhere.get(name) == at},
            [name for name in self.empty if name in empty],
        )


@dataclass
class RepairResult:
    """What `repair` did. `found`: the differences before; `left`: by `table/partition`, why it was left as it is."""

    found: list[TableDifferences] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


class CatalogCheck:
    """The check of one lake and one database."""

    def __init__(self, lake: Lake, catalog: GlueCatalog, tables: Sequence[LakeTable], on_step: OnStep) -> None:
        self._lake, self._catalog, self._tables, self._on_step = lake, catalog, tables, on_step

    def with_table_if_used(self, table: LakeTable) -> CatalogCheck:
        """A check of one table more, if the lake has files of it or the catalog has it."""
        used = next(self._lake.list(f"{table.name}/"), None) is not None or not self._catalog.missing_tables([table])
        return CatalogCheck(self._lake, self._catalog, [*self._tables, table], self._on_step) if used else self

    def differences(self, *, with_empty: bool = True) -> list[TableDifferences]:
        """The differences of every table. Changes nothing. `with_empty`: partitions without files are differences.

        A batch writes its files before it registers their partition, and a move changes catalog and layout one after
        the other. So only what a second look confirms is a difference.
        """
        found = self._look()
        if not any(each.count - (0 if with_empty else len(each.empty)) for each in found):
            return found
        return [first.confirmed_by(later) for first, later in zip(found, self._look(), strict=True)]

    def repair(self, *, remove_empty: bool = False) -> RepairResult:
        """Creates missing tables, registers partitions, points them to their files. Safe to repeat.

        `remove_empty`: also removes partitions without files. Only while no job writes to the lake: one that has
        registered such a partition does not register it again when it writes to it.
        """
        result = RepairResult(self.differences(with_empty=remove_empty))
        self._catalog.ensure_tables(self._tables)
        done, total = 0, sum(each.count for each in result.found)
        for each in result.found:
            table = each.table
            for group in chunks(each.unregistered, GROUP):
                self._on_step(done, total, f"{table}: registering partitions")
                self._catalog.register(table, group, self._catalog.layout(table).relocated)
                # A move may have ended since the layout was read.
                self._catalog.point_to_files(table, group)
                result.left |= self._refused(table, group)
                done += len(group)
            for group in chunks(list(each.elsewhere), GROUP):
                self._on_step(done, total, f"{table}: pointing partitions to their files")
                lost = self._lost({name: each.elsewhere[name] for name in group}, self._catalog.layout(table))
                for name in lost:
                    result.left[f"{table}/{name}"] = (
                        f"the catalog names {each.elsewhere[name]}, which has files that the lake's layout does not "
                        f"know: restore _layout/{table}.json from the bucket's older object versions"
                    )
                self._catalog.point_to_files(table, [name for name in group if name not in lost])
                result.left |= self._refused(table, group)
                done += len(group)
            if remove_empty:
                for group in chunks(each.empty, GROUP):
                    self._on_step(done, total, f"{table}: removing partitions without files")
                    self._remove_empty(table, group)
                    done += len(group)
        return result

    def _refused(self, table: str, partitions: Iterable[str]) -> dict[str, str]:
        found = {name: self._catalog.refused(table, [name]) for name in partitions}
        return {f"{table}/{name}": texts[0] for name, texts in found.items() if texts}

    def _remove_empty(self, table: str, partitions: Sequence[str]) -> None:
        self._catalog.remove(table, partitions)
        # A batch may have written to one of them meanwhile, and have found it registered.
        layout = self._catalog.layout(table)
        places = {name: layout.location(name).for_readers for name in partitions}
        refilled = sorted(set(places) - self._without_files(places))
        self._catalog.register(table, refilled, layout.relocated)
        self._catalog.point_to_files(table, refilled)

    def _look(self) -> list[TableDifferences]:
        missing = set(self._catalog.missing_tables(self._tables))
        found = []
        for number, table in enumerate(self._tables):
            self._on_step(number, len(self._tables), f"{table.name}: comparing")
            found.append(self._look_at(table, table.name in missing))
        return found

    def _look_at(self, table: LakeTable, missing: bool) -> TableDifferences:
        name = table.name
        if not table.partitions:  # a Delta table: its log has the partitions
            return TableDifferences(name, missing)
        folders = partitions_in_lake(self._lake, name, [column for column, _, _ in table.partitions])
        registered = {} if missing else self._catalog.locations(name)
        layout = self._catalog.layout(name)
        held = {partition for partition in folders if partition not in layout.relocated}
        relocated = dict(layout.relocated)
        held |= set(relocated) - self._without_files(relocated)

        candidates = {partition: layout.location(partition).current for partition in held - registered.keys()}
        result = TableDifferences(name, missing, len(registered), sorted(self._with_final_files(candidates)))
        vacant: dict[str, str] = {}
        for partition, uri in registered.items():
            place = layout.location(partition)
            right = normalized_location(uri) in {
                normalized_location(f"{self._catalog.root}/{location}")
                for location in (place.current, place.for_readers)
            }
            if partition not in held:
                vacant[partition] = uri
            elif not right:
                result.elsewhere[partition] = uri
        self._add_vacant(result, layout, vacant)
        return result

    def _add_vacant(self, result: TableDifferences, layout: Layout, vacant: dict[str, str]) -> None:
        """Adds registered partitions without files where the layout says: empty, or with files elsewhere in the lake.

        One that names a folder outside of the lake shows somebody else's files: it is left alone.
        """
        named = self._in_lake(vacant)
        empty = self._without_files(named)
        for partition in sorted(named):
            if partition not in empty:
                result.elsewhere[partition] = vacant[partition]
            elif layout.location(partition).next is None:
                result.empty.append(partition)

    def _lost(self, elsewhere: dict[str, str], layout: Layout) -> set[str]:
        """The partitions that would lose rows if the catalog followed the layout: it does not know their folder.

        That is so after the layout's file was lost. `elsewhere`: the locations that the catalog names.
        """
        named = self._in_lake(elsewhere)
        filled = set(named) - self._without_files(named)
        vacant = self._without_files({name: layout.location(name).for_readers for name in named})
        return {name for name in filled if name in vacant or not layout.knows(name, named[name])}

    def _in_lake(self, uris: dict[str, str]) -> dict[str, str]:
        """The locations relative to the lake; without those that are outside of it."""
        root = f"{normalized_location(self._catalog.root)}/"
        return {
            partition: normalized_location(uri).removeprefix(root) + "/"
            for partition, uri in uris.items()
            if normalized_location(uri).startswith(root)
        }

    def _files(self, location: str) -> list[str]:
        # The console makes objects that end with a slash, to show an empty folder.
        return [path for path, _ in self._lake.list(location) if not path.endswith("/")]

    def _without_files(self, locations: dict[str, str]) -> set[str]:
        """The partitions whose location (relative to the lake) has no file."""
        filled = parallel_map(lambda location: bool(self._files(location)), locations.values())
        return {partition for partition, has in zip(locations, filled, strict=True) if not has}

    def _last_batches(self) -> dict[str, int]:
        """By query: its last final batch."""
        last: dict[str, int] = {}
        for name in final_batches(self._lake, [*queries(self._lake), BATCH_PATH]):
            query, _, number = name.rpartition("-")
            last[query] = max(last.get(query, -1), int(number))
        return last

    def _with_final_files(self, locations: dict[str, str]) -> list[str]:
        """The partitions with a file of a final batch, of compaction or of replay: not those of a batch that runs.

        Only the batch after a query's last one can have files and not be final. So ledger entries that are gone do not
        matter. Lists the ledger, unless there is no location to look at.
        """
        last = self._last_batches() if locations else {}

        def is_unfinished(batch: str) -> bool:
            query, _, number = batch.rpartition("-")
            return int(number) == last.get(query, -1) + 1

        def has_final(location: str) -> bool:
            batches = {batch_of(path) for path in self._files(location)}
            return any(batch is None or not is_unfinished(batch) for batch in batches)

        holds = parallel_map(has_final, locations.values())
        return [partition for partition, has in zip(locations, holds, strict=True) if has]


def catalog_check(settings: Settings, on_step: OnStep = lambda _done, _all, _what: None) -> CatalogCheck:
    """The check of the settings' lake: the streaming job's tables, and processed_batch if there is one."""
    found = stream_check(settings, on_step)
    return found.with_table_if_used(batch_tables(load_contract(settings.contract))[0])


def stream_check(settings: Settings, on_step: OnStep = lambda _done, _all, _what: None) -> CatalogCheck:
    """The check of the tables that the streaming job writes."""
    return _check(settings, stream_tables(load_contract(settings.contract), settings.sink.format), on_step)


def batch_check(settings: Settings) -> CatalogCheck:
    """The check of the tables that the batch job writes."""
    return _check(settings, batch_tables(load_contract(settings.contract)), lambda _done, _all, _what: None)


def _check(settings: Settings, tables: Sequence[LakeTable], on_step: OnStep) -> CatalogCheck:
    catalog = GlueCatalog(client("glue"), settings.database, settings.lake)
    return CatalogCheck(lake_at(settings.lake), catalog, tables, on_step)


def as_json(found: Sequence[TableDifferences]) -> dict[str, Any]:
    """The differences by table, for `--json`."""
    return {
        each.table: {
            "missing": each.missing,
            "partitions": each.partitions,
            "unregistered": each.unregistered,
            "elsewhere": each.elsewhere,
            "empty": each.empty,
        }
        for each in found
    }
