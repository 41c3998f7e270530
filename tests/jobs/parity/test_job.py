"""The parity check on what the two jobs wrote: equal after both, and each mutation of a file found."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chispa.schema_comparer import assert_schema_equality
from pyspark.sql import types as T

from jobs.common.aws import client
from jobs.common.errors import ConfigurationError
from jobs.delivery import job as delivery_job
from jobs.lake.store import lake_at
from jobs.parity import job as parity_job
from jobs.settings.settings import Settings
from jobs.stream import job as stream_job
from local.delivery_stream import DeliveryOptions, DeliveryStream
from tests.helpers.delivered import CONTRACT, crawl, reasons, record
from tests.helpers.lakes import make_lake, put

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = [pytest.mark.spark, pytest.mark.aws]

BROKEN = b'{"City": "Paris", \xff\xfe'
MALFORMED = [
    b"not JSON",
    BROKEN,
    record(**{"Date Range": "soon"}),
    b'[{"a": 1}]',
    b'{"City": "Par',
    record(City="x" * 300),
]


@pytest.fixture(autouse=True, scope="module")
def few_shuffle_partitions(spark: SparkSession) -> Iterator[None]:
    before = spark.conf.get("spark.sql.shuffle.partitions", "200")
    spark.conf.set("spark.sql.shuffle.partitions", "2")
    yield
    spark.conf.set("spark.sql.shuffle.partitions", before)


def both_paths(spark: SparkSession, settings: Settings, options: DeliveryOptions) -> None:
    stream_job.run(lambda: spark, settings, until_drained=True)
    DeliveryStream(settings.stream.name, settings.lake, options).drain()
    crawl(settings)
    delivery_job.run(spark, settings)


@pytest.mark.parametrize("delimiter", [False, True])
def test_both_paths_agree_on_good_records_and_on_why_the_bad_ones_are_rejected(
    spark: SparkSession, lake_settings: Settings, delimiter: bool
) -> None:
    # Cities whose folders Spark would take for a number, a date, a null.
    cities = ["007", "1e3", "2016-01-01", "null", "São Paulo", "a/b=c%20", "Paris"]
    records = [record(City=city, n=number) for number, city in enumerate(cities)]
    records += [record(n=1), record(n=1), record(City=None), record(**{"Origin Display Name": ""})]
    # Without a delimiter, two neighbouring bad records would be one in the file, so good ones separate them.
    records += [part for bad in MALFORMED for part in (bad, record(n=100))]
    kinesis = client("kinesis")
    for data in records:  # one key, because only one shard keeps their order
        kinesis.put_record(StreamName=lake_settings.stream.name, Data=data, PartitionKey="one")

    both_paths(spark, lake_settings, DeliveryOptions(delimiter=delimiter, buffer_bytes=1000))
    result = parity_job.run(spark, lake_settings)

    assert (result.equal, result.only_stream, result.only_batch) == (True, 0, 0)
    assert result.stream == result.batch == len(records) - len(MALFORMED)
    assert reasons(lake_settings, "transform") == reasons(lake_settings, "batch")
    assert sum(reasons(lake_settings, "batch").values()) == len(MALFORMED)
    assert {part["partition"] for part in result.partitions} >= {"city=007/start_date=2016-09-03"}
    assert [part["stream"] for part in result.partitions] == [part["batch"] for part in result.partitions]


def row_changed(rows: pa.Table, column: str, value: object) -> pa.Table:
    values = rows[column].to_pylist()
    values[3] = value
    return rows.set_column(
        rows.schema.get_field_index(column),
        rows.schema.field(column),
        [pa.array(values, rows.schema.field(column).type)],
    )


MUTATIONS: dict[str, tuple[Callable[[pa.Table], pa.Table], tuple[int, int]]] = {
    "dropped": (lambda rows: rows.slice(1), (1, 0)),
    "doubled": (lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]), (0, 1)),
    "changed": (lambda rows: row_changed(rows, "mean_travel_time_seconds", 447), (1, 1)),
    "null for an empty string": (lambda rows: row_changed(rows, "origin_display_name", None), (1, 1)),
}


def test_a_mutated_file_is_found_and_a_moved_one_too(spark: SparkSession, lake_settings: Settings) -> None:
    put(lake_settings, [record(n=number, **{"Origin Display Name": ""}) for number in range(8)])
    both_paths(spark, lake_settings, DeliveryOptions())
    lake = lake_at(lake_settings.lake)
    [(path, _)] = lake.list("processed_batch/")
    rows = pq.ParquetFile(io.BytesIO(lake.get(path) or b"")).read()

    def put_table(mutated: pa.Table, where: str) -> None:
        content = io.BytesIO()
        pq.write_table(mutated, content)
        content.seek(0)
        lake.put(where, content)

    for name, (mutate, expected) in MUTATIONS.items():
        put_table(mutate(rows), path)
        result = parity_job.run(spark, lake_settings)
        assert (name, result.equal, result.only_stream, result.only_batch) == (name, False, *expected)
        assert {sample["side"] for sample in result.samples} == {
            side for side, count in zip(("stream", "batch"), expected, strict=True) if count
        }

    elsewhere = path.replace("city=Paris", "city=Boston")
    put_table(rows.slice(1), path)
    put_table(rows.slice(0, 1), elsewhere)
    result = parity_job.run(spark, lake_settings)
    assert (result.only_stream, result.only_batch) == (1, 1)
    assert {part["partition"]: (part["only_stream"], part["only_batch"]) for part in result.partitions} == {
        "city=Paris/start_date=2016-09-03": (1, 0),
        "city=Boston/start_date=2016-09-03": (0, 1),
    }


def test_a_missing_folder_is_an_empty_table_of_the_contract_s_types(
    spark: SparkSession, lake_settings: Settings
) -> None:
    empty = parity_job.run(spark, lake_settings)
    assert (empty.equal, empty.stream, empty.batch, empty.partitions) == (True, 0, 0, [])

    put(lake_settings, [record(), record()])
    without = parity_job.read_table(spark, lake_settings.lake, "processed", CONTRACT).schema
    stream_job.run(lambda: spark, lake_settings, until_drained=True)
    table = parity_job.read_table(spark, lake_settings.lake, "processed", CONTRACT)

    assert_schema_equality(table.schema, without)
    assert (table.schema["city"].dataType, table.schema["start_date"].dataType) == (T.StringType(), T.DateType())
    assert [row.start_date for row in table.collect()] == [date(2016, 9, 3)] * 2
    result = parity_job.run(spark, lake_settings)
    assert (result.equal, result.only_stream, result.only_batch) == (False, 2, 0)


def test_a_window_contains_the_rows_that_arrived_in_it(spark: SparkSession, lake_settings: Settings) -> None:
    put(lake_settings, [record(n=number) for number in range(6)])
    stream_job.run(lambda: spark, lake_settings, until_drained=True)
    now = datetime.now(UTC)

    def compared(since: datetime, until: datetime) -> tuple[bool, int, int]:
        result = parity_job.run(spark, lake_settings, since, until)
        return result.equal, result.only_stream, result.only_batch

    assert compared(now - timedelta(hours=1), now + timedelta(hours=1)) == (False, 6, 0)
    assert compared(now - timedelta(hours=2), now - timedelta(hours=1)) == (True, 0, 0)
    both_paths(spark, lake_settings, DeliveryOptions())
    assert compared(now - timedelta(hours=1), now + timedelta(hours=1)) == (True, 0, 0)


def test_since_must_be_before_until(spark: SparkSession, lake_settings: Settings) -> None:
    noon = datetime(2026, 11, 23, 12, tzinfo=UTC)

    with pytest.raises(ConfigurationError, match="not before until"):
        parity_job.run(spark, lake_settings, noon, noon)


@pytest.mark.nightly
def test_both_paths_agree_if_the_stream_kept_out_records_because_of_too_many_partitions(
    spark: SparkSession, lake_settings: Settings
) -> None:
    sink = lake_settings.sink.model_copy(update={"max_new_partitions_per_batch": 2})
    settings = lake_settings.model_copy(update={"sink": sink})
    put(settings, [record(City=f"city {number % 7}", n=number) for number in range(40)])
    both_paths(spark, settings, DeliveryOptions())
    assert reasons(settings, "transform")["too_many_partitions"] > 20
    result = parity_job.run(spark, settings)
    assert (result.equal, result.stream, result.batch) == (True, 40, 40)


NESTED = """
version: 2
name: clicks
columns:
  event_id: {type: string, required: true}
  user_id: {path: user.id, type: long}
  first_tag: {path: [tags, 0], type: string}
  items: {path: cart.items, type: "array<struct<sku:string,qty:int,price:decimal(10,2)>>"}
  labels: {type: "map<string,string>"}
  total: {path: cart.total, type: "decimal(12,2)"}
  ratio: {type: float}
  picture: {type: binary}
  payload: {type: json}
  day: {type: date}
  paid: {type: boolean, true_values: [Y], false_values: [N]}
  at: {type: timestamp, format: yyyy-MM-dd HH:mm, timezone: America/Sao_Paulo}
  hour: {from: at, transform: hour}
  month: {from: at, transform: month}
  bucket: {from: event_id, transform: "bucket[3]"}
  lower_tens: {from: user_id, transform: "truncate[10]"}
  site: {constant: shop}
  arrived: {metadata: arrival_time}
  arrival_date: {from: arrived, transform: date, timezone: America/Sao_Paulo}
partition_by: [day, hour, month, arrival_date, site]
stream_partition_key: [event_id]
max_record_bytes: 100000
"""


def click(number: int, **changes: object) -> bytes:
    cart = {"items": [{"sku": "a", "qty": number, "price": 10.20}, {"sku": "b"}, None], "total": "12.30"}
    event = {
        "event_id": f"e{number}",
        "user": {"id": number, "age": 5},
        "tags": ["x", "y"],
        "cart": cart,
        "labels": {"b": "1", "a": None},
        "ratio": 0.1,
        "picture": "aGVsbG8=",
        "payload": {"b": [1, 2.50], "a": None},
        "day": "2026-11-23",
        "paid": "Y",
        # Twice at 23:30, as clocks are set back; never at 00:15, as they are set forward.
        "at": "2018-11-04 00:15" if number % 2 else "2018-02-17 23:30",
    }
    return json.dumps(event | changes).encode()


@pytest.mark.parametrize("table_format", ["parquet", "delta"])
def test_both_paths_agree_on_nested_values(spark: SparkSession, tmp_path: Path, table_format: str) -> None:
    contract = tmp_path / "clicks.yaml"
    contract.write_text(NESTED)
    settings = make_lake(tmp_path, f"contract={contract}", f"sink.format={table_format}")
    good = [
        *(click(number) for number in range(5)),
        click(5, user=None, cart={}, labels={}, payload="[1]", tags=[]),
        click(6, user={"id": "7"}, cart={"items": '[{"sku": 1, "qty": 2.0, "price": "3.1"}]', "more": 1}),
        click(7, day=None, ratio="1e3", picture="", unnamed={"a": [1]}),
    ]
    bad = [
        click(8, cart={"items": [{"price": 1.234}]}),
        click(9, cart={"total": "99999999999.99"}),
        click(10, user={"id": 1.5}),
        click(11, picture="?"),
        click(12, payload="no JSON"),
    ]
    for data in good + bad:
        client("kinesis").put_record(StreamName=settings.stream.name, Data=data, PartitionKey="one")

    both_paths(spark, settings, DeliveryOptions(delimiter=True, buffer_bytes=1000))
    result = parity_job.run(spark, settings)

    assert (result.equal, result.stream, result.batch) == (True, len(good), len(good))
    assert reasons(settings, "transform") == reasons(settings, "batch") == {"wrong_type": len(bad)}
    folders = {part["partition"] for part in result.partitions}
    assert "day=2026-11-23/hour=1/month=2018-11/site=shop" in folders
    assert "day=2026-11-23/hour=23/month=2018-02/site=shop" in folders
