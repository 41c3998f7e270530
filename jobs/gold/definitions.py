"""`_definition.json` in a gold table's folder: what decided the rows that are in it.

If the contract says something else now, the table's rows would be a mixture. So the job stops until the table is
computed again. A table of an older release has no such file: only its columns are compared.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping

from deltalake import DeltaTable

from jobs.common.errors import ConfigurationError
from jobs.gold.tables import GoldTable
from jobs.lake.store import Lake


def check_definitions(lake: Lake, tables: Iterable[GoldTable], opened: Mapping[str, DeltaTable | None]) -> None:
    """Raises ConfigurationError if an existing table was computed by another definition than the contract's."""
    changed: dict[str, str] = {}
    for table in tables:
        found = opened[table.name]
        if found is None:
            continue
        stored = lake.get(_path(table))
        if stored is None:
            names = [field.name for field in found.schema().fields]
            if names != list(table.types):
                changed[table.name] = "columns"
            continue
        before, now = json.loads(stored), json.loads(_content(table))
        if before != now:
            changed[table.name] = ", ".join(key for key in sorted({*before, *now}) if before.get(key) != now.get(key))
    if changed:
        what = "; ".join(f"gold.{name}: {keys}" for name, keys in changed.items())
        again = " ".join(f"--rebuild {name}" for name in changed)
        raise ConfigurationError(
            f"the contract defines gold tables of {lake.uri} differently from when they were computed ({what}): "
            f"`movement gold {again}` computes them again from the processed rows, or put the contract back. "
            "Nothing was written"
        )


def store_definition(lake: Lake, table: GoldTable) -> None:
    """Stores the table's definition if another one, or none, is there. Called before each commit.

    So a table of an older release gets its definition. `check_definitions` has refused a table with another one.
    """
    content = _content(table)
    if lake.get(_path(table)) != content:
        lake.put(_path(table), io.BytesIO(content))


def delete_table(lake: Lake, table: GoldTable) -> None:
    """Deletes the table's files. If it is killed, the table is gone, an earlier version, or unreadable: repeat it.

    The log goes first and its newest version first, so that no version ever names files that are gone.
    """
    log = f"{table.folder}/_delta_log/"
    lake.delete([f"{log}_last_checkpoint"])
    for path in sorted((path for path, _ in lake.list(log)), reverse=True):
        lake.delete([path])
    lake.delete([path for path, _ in lake.list(f"{table.folder}/")])


def _path(table: GoldTable) -> str:
    # Delta ignores files whose names begin with an underscore, VACUUM too.
    return f"{table.folder}/_definition.json"


def _content(table: GoldTable) -> bytes:
    return json.dumps(table.definition, indent=1, sort_keys=False).encode()
