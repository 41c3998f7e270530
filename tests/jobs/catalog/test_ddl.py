"""CREATE EXTERNAL TABLE says what the registration says."""

from __future__ import annotations

from jobs.catalog.ddl import create_external_table
from jobs.catalog.glue import GlueCatalog
from jobs.catalog.tables import glue_table, stream_tables
from tests.helpers.glue_calls import LAKE, Calls, table
from tests.helpers.samples import TRAVEL_TIMES


def test_the_statement_has_every_column_partition_and_place_of_the_registered_table(
    glue: Calls, catalog: GlueCatalog
) -> None:
    registered = table(glue, "processed")
    statement = create_external_table(glue_table(stream_tables(TRAVEL_TIMES, "parquet")[1], LAKE), "travel")
    assert statement.startswith("CREATE EXTERNAL TABLE `travel`.`processed` (\n")
    columns, _, rest = statement.partition("PARTITIONED BY")
    for column in registered["StorageDescriptor"]["Columns"]:
        assert f"\n  `{column['Name']}` {column['Type']}" in columns
    for key in registered["PartitionKeys"]:
        assert f"\n  `{key['Name']}` {key['Type']}" in rest
    storage = registered["StorageDescriptor"]
    for text in (storage["Location"], storage["InputFormat"], storage["SerdeInfo"]["SerializationLibrary"]):
        assert f"'{text}'" in rest


def test_a_quote_in_a_comment_does_not_end_the_text() -> None:
    statement = create_external_table(glue_table(stream_tables(TRAVEL_TIMES, "parquet")[1], LAKE), "travel")
    assert "The record\\'s sequence number" in statement


def test_athena_reads_the_columns_of_a_delta_table_from_its_log() -> None:
    tables = {each.name: each for each in stream_tables(TRAVEL_TIMES, "delta")}
    assert create_external_table(glue_table(tables["processed"], "s3://b/lake"), "d") == (
        "CREATE EXTERNAL TABLE `d`.`processed`\nLOCATION 's3://b/lake/processed/'\n"
        "TBLPROPERTIES ('table_type' = 'DELTA');"
    )
