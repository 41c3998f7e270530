"""CSV, JSON lines and Parquet files: the same rows give the same records, and no value changes."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.common.errors import ConfigurationError, TerminalError
from jobs.schema.rejections import Rejection
from jobs.schema.table import load_contract
from jobs.settings.settings import load_settings
from producer.input_files import find_input_files
from producer.json_encoder import JsonEncoder
from producer.json_reader import JsonChunk
from producer.parallel import send_in_processes
from producer.produce import plan, produce
from producer.readers import encoder_for, open_reader
from producer.record_encoder import PutRecordsEntry
from tests.helpers.examples import examples
from tests.helpers.faulty_kinesis import FaultyKinesis

CONTRACT = load_contract("travel_times.yaml")
HEADER = [field for field in CONTRACT.source_fields if field != "City"]
GOOD = ["1", "a", "[]", "2", "b", "[]", "07/31/2016 - 08/28/2016, Every day, Daily Average", "20", "10", "30"]
RECORD = dict(zip(HEADER, GOOD, strict=True))
LIMIT = 1024 * 1024
COMPRESS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}

Row = list[str]


def map_json(record: dict[str, str]) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in record.items()}


def joined_pairs(pairs: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f'"{name}":{text}' for name, text in pairs) + "}"


def joined(changes: dict[str, str]) -> str:
    return joined_pairs(list({**map_json(RECORD), **changes}.items()))


Encoded = tuple[list[tuple[int, PutRecordsEntry]], list[tuple[int, Rejection]]]


def encoded(path: Path, skip: int = 0, *, limit: int = LIMIT, check: bool = True) -> Encoded:
    """The file's (row, record) and (row, rejection), as a run makes them."""
    (file,) = find_input_files([path], CONTRACT.file_name)
    records, rejected = [], []
    with open_reader(file) as reader:
        encode = encoder_for(reader, file, CONTRACT, limit, check)
        for chunk in reader.chunks(skip):
            one = encode(chunk)
            for at in range(chunk.file_rows):
                found, bad = one.part(at, at + 1)
                records += [(chunk.first_row + at, record) for record in found]
                rejected += [(chunk.first_row + index, rejection) for index, rejection in bad]
    return records, rejected


def in_each_format(folder: Path, rows: Sequence[Row], suffix: str = "") -> dict[str, Path]:
    """The rows as a file of each format, by the format."""
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([HEADER, *rows])
    lines = "".join(json.dumps(dict(zip(HEADER, row, strict=True))) + "\n" for row in rows)
    files = {form: folder / f"Travel_Times - Paris.{form}{suffix}" for form in ("csv", "jsonl")}
    files["csv"].write_bytes(COMPRESS[suffix](text.getvalue().encode()))
    files["jsonl"].write_bytes(COMPRESS[suffix](lines.encode()))
    files["parquet"] = folder / "Travel_Times - Paris.parquet"
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in HEADER]
    table = pa.table([pa.array(column, pa.string()) for column in columns], HEADER)
    pq.write_table(table, files["parquet"], row_group_size=3)
    return files


unusual = st.sampled_from(["", " ", "-1", "+5", "1.0", "15.5", "1.5e1", "99999999999", "x", "\x00", 'a "b"\\', "\r\n"])
rows = st.lists(
    st.tuples(*[st.one_of(st.just(value), st.just(value), unusual, st.text(max_size=3)) for value in GOOD]).map(list),
    max_size=7,
)


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows, suffix=st.sampled_from(list(COMPRESS)), check=st.booleans(), skip=st.integers(0, 8))
def test_the_same_rows_of_each_format_put_the_same_records_and_have_the_same_rejects(
    rows: list[Row], suffix: str, check: bool, skip: int, tmp_path: Path
) -> None:
    found = {}
    for form, file in in_each_format(tmp_path, rows, suffix).items():
        records, rejected = encoded(file, skip, check=check)
        found[form] = ([(row, json.loads(one.Data), one.PartitionKey) for row, one in records], rejected)

    assert found["csv"] == found["jsonl"] == found["parquet"]
    records, rejected = found["csv"]
    numbers = sorted([row for row, *_ in records] + [row for row, _ in rejected])
    assert numbers == list(range(min(skip, len(rows)), len(rows)))
    for row, record, _ in records:
        assert record == dict(zip(HEADER, rows[row], strict=True)) | {"City": "Paris"}
    assert check or not rejected


def test_a_json_line_goes_onto_the_stream_as_it_is_with_the_fields_of_the_files_name(tmp_path: Path) -> None:
    lines = [
        '{"Origin Movement ID":7, "a":1.50, "b": 12345678901234567890 }',
        "",
        '  {"City":null,"Origin Movement ID":"x","é":"\\u00e9"}\t',
        "{ }",
        '{"Origin Movement ID":1.0,"City":"Lyon","n":{"m":[1e400,{}]}}',
    ]
    file = tmp_path / "Travel_Times - Paris.ndjson"
    for end in ("\n", "\r\n"):
        file.write_text(end.join(lines), encoding="utf-8", newline="")
        records, rejected = encoded(file, check=False)
        assert [(row, one.Data.decode(), one.PartitionKey) for row, one in records] == [
            (0, '{"Origin Movement ID":7, "a":1.50, "b": 12345678901234567890,"City":"Paris"}', "Paris|7|"),
            (2, '{"City":null,"Origin Movement ID":"x","é":"\\u00e9"}', "|x|"),
            (3, '{"City":"Paris"}', "Paris||"),
            (4, '{"Origin Movement ID":1.0,"City":"Lyon","n":{"m":[1e400,{}]}}', "Lyon|1.0|"),
        ]
        assert rejected == []


@pytest.mark.parametrize("check", [True, False])
def test_lines_that_cannot_be_sent_are_rejected_and_the_others_are_not(check: bool, tmp_path: Path) -> None:
    good = json.dumps(RECORD).encode()
    large = json.dumps(RECORD | {"more": "x" * LIMIT}).encode()
    bad = [b'{"a":', b"[1]", b'"x"', b'{"a":"\xff"}', b'{"\xe9":1}', b"{} {}", large, b"{" * 5000]
    file = tmp_path / "Travel_Times - Paris.jsonl"
    file.write_bytes(b"\n".join([good, *bad, good]))
    records, rejected = encoded(file, check=check)
    assert [row for row, _ in records] == [0, 9]
    assert [(row, one.reason) for row, one in rejected] == [
        (1, "not_json"),
        (2, "not_an_object"),
        (3, "not_an_object"),
        (4, "not_utf8"),
        (5, "not_utf8"),
        (6, "not_json"),
        (7, "too_large"),
        (8, "not_json"),
    ]


values = st.sampled_from(
    [
        *(
            '"1"',
            '"a"',
            "20",
            "-1",
            "1.0",
            "1e2",
            "99999999999999999999",
            "null",
            "true",
            '""',
            '"é"',
            json.dumps(GOOD[6]),
        ),
        *(
            '"\\u00e9"',
            '"\\udc00"',
            '"\\ud83d\\ude00"',
            '"{}"',
            '"\\""',
            "[1]",
            '{"a":{}}',
            '"\x00"',
            "01",
            '"x',
            "1}\n{",
        ),
    ]
)
fields = st.sampled_from([*HEADER, "City", "\\u0043ity", "note"])
documents = st.one_of(
    st.just(json.dumps(RECORD)),
    st.dictionaries(st.sampled_from(HEADER), values, max_size=2)
    .map(lambda some: dict(map_json(RECORD)) | some)
    .map(joined),
    st.lists(st.tuples(fields, values), max_size=3).map(lambda some: joined_pairs([*map_json(RECORD).items(), *some])),
    st.lists(st.tuples(fields, values), max_size=2).map(joined_pairs),
    st.sampled_from(["", "{ }", "{} {}", "[]", '{"a":"\xff"}', "{}\x00{}", '{"City":null}', '{"a":{}', "}{"]),
)


@settings(max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(documents, min_size=1, max_size=9), st.lists(documents, max_size=1), st.integers(0, 40))
def test_documents_that_are_read_as_columns_are_judged_and_sent_as_those_that_are_read_one_by_one(
    some: list[str], more: list[str], copies: int
) -> None:
    chunk = JsonChunk(
        0, 1, 0, [one.encode("latin-1" if "\xff" in one else "utf-8") for one in some * (copies + 1) + more]
    )
    for given_fields in ({"City": "Paris"}, {}):
        encoder = JsonEncoder(CONTRACT, given_fields, LIMIT)
        one_by_one = encoder._encode_one_by_one(chunk)
        found = encoder.encode(chunk)
        for at in range(chunk.count):
            assert found.record(at) == one_by_one.record(at), chunk.documents[at]


@pytest.mark.parametrize(
    "unusual",
    [
        [("City", "null")],
        [("City", '"Lyon"')],
        [("\\u0043ity", "null")],
        [("\\u0043ity", '"Lyon"')],
        [(HEADER[0], '"7"')],
        [("note", "[" * 1200 + "]" * 1200)],
        [(HEADER[1], "1.50")],
        [(HEADER[1], '"\\udc00"')],
    ],
)
def test_one_unusual_document_among_plain_ones_is_sent_as_if_it_were_alone(unusual: list[tuple[str, str]]) -> None:
    plain = list(map_json(RECORD).items())
    odd = [joined_pairs([*plain, *unusual]), "{}", "", joined_pairs(plain) + " " + joined_pairs(plain)]
    for texts in ([odd[0]], odd[:2], odd[2:]):
        chunk = JsonChunk(0, 1, 0, [text.encode() for text in [joined_pairs(plain)] * 30 + texts])
        encoder = JsonEncoder(CONTRACT, {"City": "Paris"}, LIMIT)
        found, expected = encoder.encode(chunk), encoder._encode_one_by_one(chunk)
        assert [found.record(at) for at in range(chunk.count)] == [expected.record(at) for at in range(chunk.count)]


def test_plain_json_lines_are_read_as_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = JsonEncoder(CONTRACT, {"City": "Paris"}, LIMIT)
    alone: list[int] = []
    slow = encoder._encode_one_by_one
    monkeypatch.setattr(encoder, "_encode_one_by_one", lambda chunk: alone.append(chunk.count) or slow(chunk))
    numbers = RECORD | {"Mean Travel Time (Seconds)": 20}
    bad = RECORD | {"Mean Travel Time (Seconds)": "soon"}
    for rows, expected in (([RECORD] * 50, []), ([numbers] * 50, []), ([RECORD] * 50 + [bad], [1])):
        alone.clear()
        encoded = encoder.encode(JsonChunk(0, 1, 0, [json.dumps(row).encode() for row in rows]))
        assert alone == expected
        assert len(encoded.part(0, len(rows))[0]) == 50


def test_the_limit_of_a_record_counts_the_fields_of_the_name_and_the_key(tmp_path: Path) -> None:
    file = tmp_path / "Travel_Times - Paris.jsonl"
    file.write_text(json.dumps(RECORD))
    (((_, record),), _) = encoded(file)
    size = len(record.Data) + len(record.PartitionKey)
    assert encoded(file, limit=size)[0] == [(0, record)]
    assert [one.reason for _, one in encoded(file, limit=size - 1)[1]] == ["too_large"]


MOMENT = datetime(2026, 7, 1, 10, 30, 0, 250_000)
DECIMAL = pa.decimal128(20, 3)
ITEM = pa.struct({"sku": pa.string(), "at": pa.timestamp("s", "UTC"), "prices": pa.list_(pa.float64())})
TYPES: list[tuple[Any, Any, str]] = [
    (pa.int64(), 2**63 - 1, "9223372036854775807"),
    (pa.uint64(), 2**64 - 1, "18446744073709551615"),
    (pa.int8(), -5, "-5"),
    (pa.bool_(), True, "true"),
    (DECIMAL, Decimal("12345678901234567.890"), "12345678901234567.890"),
    (pa.decimal256(50, 10), Decimal("1.0000000001"), "1.0000000001"),
    (pa.float64(), 0.1, "0.1"),
    (pa.float64(), float("nan"), '"NaN"'),
    (pa.float32(), float("-inf"), '"-Infinity"'),
    (pa.string(), 'é"\n', '"é\\"\\n"'),
    (pa.large_string(), "x", '"x"'),
    (pa.dictionary(pa.int32(), pa.string()), "x", '"x"'),
    (pa.binary(), b"\xff\x00", '"/wA="'),
    (pa.date32(), date(2026, 7, 1), '"2026-07-01"'),
    (pa.time64("us"), time(1, 2, 3, 4), '"01:02:03.000004"'),
    (pa.timestamp("us", "UTC"), MOMENT.replace(tzinfo=UTC), '"2026-07-01T10:30:00.250000Z"'),
    (pa.timestamp("ms", "America/New_York"), datetime(2026, 7, 1, 10, 30, tzinfo=UTC), '"2026-07-01T10:30:00Z"'),
    (pa.timestamp("us"), MOMENT, '"2026-07-01T10:30:00.250000"'),
    (pa.timestamp("ns"), 1, '"1970-01-01T00:00:00.000000001"'),
    (pa.list_(DECIMAL), [Decimal("1.500"), None], "[1.500,null]"),
    (pa.map_(pa.string(), pa.int64()), [("a b", 1), ("c", None)], '{"a b":1,"c":null}'),
    (pa.map_(pa.date32(), pa.string()), [(date(2026, 7, 1), "x")], '{"2026-07-01":"x"}'),
    (
        ITEM,
        {"sku": "s", "at": 0, "prices": [float("inf"), 2.0]},
        '{"sku":"s","at":"1970-01-01T00:00:00Z","prices":["Infinity",2.0]}',
    ),
    (pa.list_(pa.struct({"q": pa.int32()})), [{"q": 1}, None, {"q": None}], '[{"q":1},null,{"q":null}]'),
    (pa.list_(pa.int32(), 2), [1, 2], "[1,2]"),
]


@pytest.mark.parametrize("skip", [0, 1, 3])
def test_the_types_of_parquet_have_their_exact_form_in_json(skip: int, tmp_path: Path) -> None:
    # Rows with nulls around the row, so that every value is at an offset.
    arrays = {f"c{at}": pa.array([None, value, None, value], kind) for at, (kind, value, _) in enumerate(TYPES)}
    pq.write_table(pa.table(arrays), tmp_path / "types.parquet")
    records, rejected = encoded(tmp_path / "types.parquet", skip, check=False)
    assert rejected == []
    assert [row for row, _ in records] == list(range(skip, 4))
    for row, one in records:
        texts = [text if row % 2 else "null" for _, _, text in TYPES]
        expected = ",".join(f'"{name}":{text}' for name, text in zip(arrays, texts, strict=True))
        assert one.Data.decode() == "{" + expected + "}"


def test_parquet_text_that_is_not_utf8_rejects_its_row_only(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"Origin Movement ID": texts}), tmp_path / "x.parquet")
    records, rejected = encoded(tmp_path / "x.parquet", check=False)
    assert [row for row, _ in records] == [0, 2]
    assert [(row, one.reason) for row, one in rejected] == [(1, "not_utf8")]


def test_a_large_row_group_is_read_in_constant_memory(tmp_path: Path) -> None:
    text = pa.array([f"{number:0200d}" for number in range(100_000)])
    pq.write_table(pa.table({"t": text}), tmp_path / "x.parquet", row_group_size=100_000, use_dictionary=False)
    del text
    (file,) = find_input_files([tmp_path])
    before, most, count = pa.total_allocated_bytes(), 0, 0
    with open_reader(file) as reader:
        for chunk in reader.chunks():
            count += chunk.count
            most = max(most, pa.total_allocated_bytes() - before)
    assert count == 100_000
    assert most < 6_000_000, "the row group has 20 MB"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.json", b'[\n{"a":1}]', r"is JSON, but not a record on each line: `jq -c '.\[\]' FILE"),
        ("x.json", b'{\n  "a": 1\n}\n', r"is JSON, but not a record on each line: `jq -c \. FILE"),
        ("x", b'[{"a":1}]', "not a record on each line"),
        ("x.csv", b"PK\x03\x04rest", "is a zip or Excel file, not CSV, JSON lines or Parquet; unzip it, or save"),
        ("x.csv", "a,b\n".encode("utf-16"), "is text in UTF-16, .*save it as UTF-8"),
        ("x.jsonl.gz", gzip.compress(b"Obj\x01rest", mtime=0), "is an Avro file"),
        ("x.parquet.gz", gzip.compress(b"PAR1rest", mtime=0), "is a Parquet file in a pipe or an archive"),
        ("x.parquet", b"", "does not start like a Parquet file; is it complete"),
        ("x.parquet", b"PAR1 and half a file", "not readable as Parquet"),
        ("x.jsonl.zst", pa.compress(b'{"a":1}\n' * 9, codec="zstd", asbytes=True)[:-3], "not readable"),
    ],
)
def test_the_error_of_a_file_that_is_none_of_the_formats_says_what_to_do(
    name: str, content: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TerminalError, match=told) as error:
        encoded(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("columns", "names", "told"),
    [
        ([pa.array([1], pa.duration("s"))], ["a"], r"column 'a': duration\[s\] has no form in JSON; cast it"),
        ([pa.array([1]), pa.array([2])], ["a", "a"], "two columns are named 'a'"),
        ([pa.array([{"d": 1}], pa.struct({"d": pa.duration("s")}))], ["s"], r"column 's\.d': duration"),
    ],
)
def test_parquet_columns_that_json_cannot_have_are_refused(
    columns: list[Any], names: list[str], told: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns, names), tmp_path / "x.parquet")
    with pytest.raises(TerminalError, match=told):
        encoded(tmp_path / "x.parquet")


def test_the_format_follows_from_content_and_name_and_can_be_given(tmp_path: Path) -> None:
    line = json.dumps(RECORD).encode()
    parquet = in_each_format(tmp_path, [GOOD])["parquet"].read_bytes()
    text = (",".join(HEADER) + "\n" + ",".join(f'"{cell}"' for cell in GOOD)).encode()
    for name, content, form in (
        ("x.txt", line, None),
        ("x.log.gz", gzip.compress(b"\n" + line), None),
        ("x.csv", line, "jsonl"),
        ("x.jsonl", parquet, None),
        ("y.txt", text, None),
        ("x.json", text, "csv"),
    ):
        (tmp_path / name).write_bytes(content)
        (file,) = find_input_files([tmp_path / name], format=form)
        with open_reader(file) as reader:
            encode = encoder_for(reader, file, CONTRACT, LIMIT, True)
            data = [record.Data for chunk in reader.chunks() for record in encode(chunk).part(0, chunk.file_rows)[0]]
        assert [json.loads(one) for one in data] == [RECORD], name
    with pytest.raises(ConfigurationError, match="--format xml: allowed are csv, jsonl, parquet"):
        find_input_files([tmp_path / "x.txt"], format="xml")


@pytest.mark.aws
@pytest.mark.parametrize("form", ["jsonl.gz", "parquet"])
def test_an_interrupted_run_continues_at_its_row_and_counts_each_reject_once(
    form: str, tmp_path: Path, aws_environment: pytest.MonkeyPatch
) -> None:
    rows = [[str(number), *GOOD[1:-1], "9" if number % 10 == 0 else "30"] for number in range(1500)]
    data = tmp_path / "data"
    data.mkdir()
    in_each_format(data, rows, ".gz")
    for file in data.iterdir():
        if not file.name.endswith(form):
            file.unlink()
    (data / "._Travel_Times - Paris.jsonl").write_bytes(b"\x00\x05\x16\x07")
    chosen = load_settings(None, ["stream.name=stream", f"local.state_dir={tmp_path / 'state'}"])
    stops = iter([False, True])
    with FaultyKinesis() as kinesis:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
        first = produce([data], chosen, keep_checkpoint=True, stop=lambda: next(stops))
        assert first.stopped
        assert 0 < first.produced < 1350
        second = produce([data], chosen, keep_checkpoint=True, resume=True)
    assert first.produced + second.produced == len(kinesis.accepted) == 1350
    assert len({json.loads(body)["Origin Movement ID"] for _, body in kinesis.accepted}) == 1350
    entries = [json.loads(line) for line in Path(second.rejects or "").read_text().splitlines()]
    assert [entry["row"] for entry in entries] == list(range(0, 1500, 10))
    assert {entry["reason"] for entry in entries} == {"failed_check"}
    assert [entry["line"] for entry in entries] == [None if form == "parquet" else one["row"] + 1 for one in entries]
    assert json.loads(entries[3]["record"])["Origin Movement ID"] == "30"


@pytest.mark.aws
def test_a_folder_of_every_format_is_one_run(tmp_path: Path, aws_environment: pytest.MonkeyPatch) -> None:
    in_each_format(tmp_path, [GOOD] * 20, ".zst")
    chosen = load_settings(None, ["stream.name=stream", f"local.state_dir={tmp_path / 'state'}"])
    with FaultyKinesis() as kinesis:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
        result = produce([tmp_path], chosen)
    assert [file.produced for file in result.files] == [20, 20, 20]
    assert Counter(key for key, _ in kinesis.accepted) == {"Paris|1|2": 60}


def test_a_parquet_file_without_a_required_column_stops_the_run_before_anything_is_sent(tmp_path: Path) -> None:
    pq.write_table(pa.table({"City": ["Paris"]}), tmp_path / "x.parquet")
    with pytest.raises(TerminalError, match=r"lacks 'Origin Movement ID', .*its columns are: City"):
        plan([tmp_path / "x.parquet"], load_settings(None, []), keep_checkpoint=False)


def test_processes_are_refused_if_a_column_of_a_file_is_the_field_that_separates_them(tmp_path: Path) -> None:
    row = {**RECORD, "City": "Paris"}
    pq.write_table(pa.table({name: [value] for name, value in row.items()}), tmp_path / "x.parquet")
    prepared = plan([tmp_path / "x.parquet"], load_settings(None, []), keep_checkpoint=False)
    with pytest.raises(ConfigurationError, match=r"x\.parquet has a column 'City' of its own"):
        send_in_processes(prepared, 2)
