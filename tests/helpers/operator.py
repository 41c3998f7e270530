"""What an operator does to a job at night, between two of its runs: to its checkpoint and its lake, both in folders."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.lake.ledger import queries
from jobs.lake.store import FolderLake

if TYPE_CHECKING:
    from mypy_boto3_glue import GlueClient


class Operator:
    """Acts on the folders `checkpoint` and `lake` of `folder`, and keeps backups of them there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backups: dict[str, list[Path]] = {"checkpoint": [], "lake": []}
        self._both: list[tuple[Path, Path]] = []

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    def back_up(self, name: str) -> None:
        source = self.folder / name
        if source.exists():
            copy = self.folder / f"{name}-{len(self.backups[name])}"
            self.backups[name].append(Path(shutil.copytree(source, copy)))

    def restore(self, name: str, pick: int) -> None:
        """Puts a folder back from one of its backups; empties it if there is no backup."""
        copies = self.backups[name]
        self.empty(name)
        if copies:
            shutil.copytree(copies[pick % len(copies)], self.folder / name, dirs_exist_ok=True)

    def empty(self, name: str) -> None:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / name).mkdir()
        if name == "lake":
            self._both.clear()

    def back_up_both(self) -> None:
        """Backs up checkpoint and lake at one moment."""
        for name in ("checkpoint", "lake"):
            self.back_up(name)
        if all(self.backups.values()):
            self._both.append((self.backups["checkpoint"][-1], self.backups["lake"][-1]))

    def put_back_what_the_job_remembers(self, pick: int) -> None:
        """Puts checkpoint, ledger and leases back as they were at `back_up_both`, and leaves the tables alone.

        Does nothing if the lake was emptied since: somebody has then deleted the records that the ledger names.
        """
        if not self._both:
            return
        checkpoint, lake = self._both[pick % len(self._both)]
        pairs = [(checkpoint, self.checkpoint)]
        pairs += [(lake / name, self.folder / "lake" / name) for name in ("_ledger", "_claims")]
        for source, target in pairs:
            shutil.rmtree(target, ignore_errors=True)
            if source.exists():
                shutil.copytree(source, target)

    def trim_checkpoint(self, count: int) -> None:
        """Deletes the newest `count` offsets, and their commits."""
        for number in self.numbers("offsets")[-count:]:
            for name in ("offsets", "commits"):
                (self.checkpoint / name / str(number)).unlink(missing_ok=True)

    def delete_metadata(self) -> None:
        (self.checkpoint / "metadata").unlink(missing_ok=True)

    def cut_the_power(self, name: str) -> None:
        """Leaves the newest file of `offsets` or `commits` empty, as a file system does that had not written it yet."""
        numbers = self.numbers(name)
        if numbers:
            (self.checkpoint / name / str(numbers[-1])).write_bytes(b"")
            (self.checkpoint / name / f".{numbers[-1]}.crc").unlink(missing_ok=True)

    def expire_ledger_entries(self, share: float) -> None:
        """Deletes the oldest entries of every query, as a lifecycle rule does."""
        lake = self.folder / "lake"
        for query in queries(FolderLake(str(lake))):
            numbers = sorted(int(path.stem) for path in (lake / "_ledger" / query).glob("[0-9]*.json"))
            for number in numbers[: int(share * len(numbers))]:
                (lake / "_ledger" / query / f"{number}.json").unlink()

    def drop_from_catalog(self, glue: GlueClient, database: str, what: str) -> None:
        """Drops every second partition of each table, the table `processed`, or the database."""
        try:
            if what == "database":
                glue.delete_database(Name=database)
            elif what == "processed":
                glue.delete_table(DatabaseName=database, Name=what)
            else:
                for table in glue.get_tables(DatabaseName=database)["TableList"]:
                    names: Any = {"DatabaseName": database, "TableName": table["Name"]}
                    for partition in glue.get_partitions(**names)["Partitions"][::2]:
                        glue.delete_partition(**names, PartitionValues=partition["Values"])
        except glue.exceptions.EntityNotFoundException:
            return  # it is gone already

    def numbers(self, name: str) -> list[int]:
        return sorted(int(path.name) for path in (self.checkpoint / name).glob("[0-9]*"))
