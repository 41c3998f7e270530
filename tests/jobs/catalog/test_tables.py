"""The definitions of Delta tables and tables over manifests."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError

from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import LakeTable, delta_table, manifest_table

COLUMNS = (("city", "string", "The city"), ("rows", "long", ""), ("mean", "int", ""))


class Recorded:
    """Records the input of create_table."""

    def __init__(self) -> None:
        self.tables: list[dict[str, Any]] = []

    def get_table(self, *, DatabaseName: str, Name: str) -> dict[str, Any]:
        for table in self.tables:
            if table["Name"] == Name:
                return {"Table": {**table, "VersionId": "1"}}
        raise ClientError({"Error": {"Code": "EntityNotFoundException", "Message": Name}}, "GetTable")

    def create_database(self, **_: Any) -> None: ...

    def create_table(self, *, DatabaseName: str, TableInput: dict[str, Any]) -> None:
        self.tables.append(TableInput)


def created(table: LakeTable) -> dict[str, Any]:
    glue = Recorded()
    GlueCatalog(glue, "db", "s3://b/lake").ensure_tables([table])
    return glue.tables[0]


def test_a_delta_table_is_registered_as_a_crawler_registers_native_ones() -> None:
    found = created(delta_table("gold_t", "gold/t", "A table", COLUMNS))

    assert (found["Name"], found["TableType"], found["PartitionKeys"]) == ("gold_t", "EXTERNAL_TABLE", [])
    parameters = found["Parameters"]
    assert (parameters["spark.sql.sources.provider"], parameters["table_type"]) == ("delta", "DELTA")
    assert parameters["classification"] == "delta"
    fields = json.loads(parameters["spark.sql.sources.schema"])["fields"]
    assert [(field["name"], field["type"]) for field in fields] == [
        ("city", "string"), ("rows", "long"), ("mean", "integer"),
    ]  # fmt: skip
    storage = found["StorageDescriptor"]
    assert storage["Location"] == storage["SerdeInfo"]["Parameters"]["path"] == "s3://b/lake/gold/t/"
    assert [(column["Name"], column["Type"]) for column in storage["Columns"]] == [
        ("city", "string"), ("rows", "bigint"), ("mean", "int"),
    ]  # fmt: skip


def test_a_table_over_a_manifest_reads_the_files_that_it_names() -> None:
    storage = created(manifest_table("gold_t_manifest", "gold/t/_symlink", "A table", COLUMNS))["StorageDescriptor"]

    assert storage["Location"] == "s3://b/lake/gold/t/_symlink/"
    assert storage["InputFormat"].endswith("SymlinkTextInputFormat")
    assert storage["SerdeInfo"]["SerializationLibrary"].endswith("ParquetHiveSerDe")
    assert "path" not in storage["SerdeInfo"]["Parameters"]
