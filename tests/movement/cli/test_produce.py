"""`movement produce` and `movement sample` on the command line."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.common.errors import ConfigurationError, TerminalError
from movement.cli.console import graceful_stop
from movement.cli.main import app
from producer.csv_fast_path import read_columns
from producer.sample import write_sample
from tests.helpers.faulty_kinesis import FaultyKinesis

pytestmark = pytest.mark.aws


@pytest.fixture
def kinesis(aws_environment):
    with FaultyKinesis() as server:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", server.url)
        yield server


def produce(tmp_path, *arguments: str):
    common = ["--set", "stream.name=stream", "--set", f"local.state_dir={tmp_path / 'state'}"]
    return CliRunner().invoke(app, ["produce", *common, "--json", str(tmp_path / "out.json"), *arguments])


def result_of(tmp_path):
    return json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))


def test_a_sample_is_sent_and_the_result_says_so(kinesis, tmp_path):
    done = CliRunner().invoke(app, ["sample", "--rows", "700", "--out", str(tmp_path / "data"), "--cities", "2"])
    assert done.exit_code == 0, done.output
    assert "700 rows" in done.output

    done = produce(tmp_path, str(tmp_path / "data"))
    assert done.exit_code == 0, done.output
    assert "700 records" in done.output
    result = result_of(tmp_path)
    assert (result["produced"], result["stream"], result["rejected"]) == (700, "stream", 0)
    assert [file["produced"] for file in result["files"]] == [350, 350]
    assert result["seconds"] > 0
    assert len(kinesis.accepted) == 700


def test_rejected_rows_are_filed_with_line_and_reason_and_make_the_exit_code_1(kinesis, tmp_path):
    file = tmp_path / "Travel_Times - Paris.csv"
    write_sample(3, tmp_path, cities=1)
    good = file.read_text(encoding="utf-8").splitlines()
    period = "08/28/2016 - 07/31/2016, Every day, Daily Average"
    bad = [
        '"1","a","2","b","02/30/2017 - 03/27/2017, Every day, Daily Average",5,1,9',
        '"1","a\nb","2","b","03/27/2017 - 03/28/2017, Every day, Daily Average",x,1,9',
        '"1","a"',
        '"1"x,"a"',
        f'"1","a","2","b","{period}",5,1,9',
    ]
    file.write_bytes("\n".join([good[0], good[1], *bad, good[2]]).encode() + b'\n"1","\xff","2","b","x",5,1,9')

    done = produce(tmp_path, str(file))
    assert done.exit_code == 1
    result = result_of(tmp_path)
    assert (result["produced"], result["rejected"]) == (2, 6)
    lines = [json.loads(line) for line in Path(result["rejects"]).read_text(encoding="ascii").splitlines()]
    assert sorted((line["line"], line["reason"]) for line in lines) == [
        (3, "bad_date_range"),
        (4, "wrong_type"),
        (6, "malformed_row"),
        (7, "malformed_row"),
        (8, "failed_check"),
        (10, "not_utf8"),
    ]
    assert next(line for line in lines if line["line"] == 4)["cells"][5] == "x"
    assert produce(tmp_path, str(file), "--allow-rejects").exit_code == 0


def test_without_the_check_the_stream_gets_what_the_contract_rejects(kinesis, tmp_path):
    sample = write_sample(200, tmp_path / "data", cities=1, bad_rate=0.2)
    done = produce(tmp_path, str(tmp_path / "data"), "--no-check")
    assert (done.exit_code, len(kinesis.accepted)) == (0, 200)
    done = produce(tmp_path, str(tmp_path / "data"), "--check")
    assert (done.exit_code, len(kinesis.accepted)) == (1, 400 - sample.bad)


def test_a_dry_run_sends_nothing_and_shows_what_would_be_sent(tmp_path):
    sample = write_sample(100, tmp_path / "data", cities=1, bad_rate=0.05)
    done = produce(tmp_path, str(tmp_path / "data"), "--dry-run", "--rejects", str(tmp_path / "bad.jsonl"))
    assert done.exit_code == 1
    assert "95 records" in done.output
    assert '"City":"Paris"' in done.output
    result = result_of(tmp_path)
    assert (result["produced"], result["rejected"], result["dry_run"]) == (95, sample.bad, True)
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 5


def test_a_steady_rate_is_kept(kinesis, tmp_path):
    write_sample(300, tmp_path / "data", cities=1)
    started = time.monotonic()
    done = produce(tmp_path, str(tmp_path / "data"), "--rate", "200")
    assert done.exit_code == 0
    assert time.monotonic() - started > 1.2  # 300 rows at 200 a second
    assert len(kinesis.requests) >= 7


def test_standard_input_is_sent_under_the_city_that_is_named(kinesis, tmp_path):
    write_sample(20, tmp_path, cities=1)
    common = ["--set", "stream.name=stream", "--set", f"local.state_dir={tmp_path / 'state'}"]
    content = (tmp_path / "Travel_Times - Paris.csv").read_bytes()
    done = CliRunner().invoke(app, ["produce", *common, "-", "--city", "Lyon"], input=content)
    assert done.exit_code == 0, done.output
    assert {json.loads(data)["City"] for _, data in kinesis.accepted} == {"Lyon"}


def test_fields_are_set_by_hand_and_one_that_the_contract_lacks_is_an_error(kinesis, tmp_path):
    write_sample(20, tmp_path, cities=1)
    file = str(tmp_path / "Travel_Times - Paris.csv")
    assert produce(tmp_path, file, "--field", "City=São Paulo").exit_code == 0
    assert {json.loads(data)["City"] for _, data in kinesis.accepted} == {"São Paulo"}
    assert result_of(tmp_path)["files"][0]["fields"] == {"City": "São Paulo"}
    wrong = produce(tmp_path, file, "--field", "Cty=Lyon")
    assert "has no source field 'Cty'; it has 'City'" in str(wrong.exception)
    assert produce(tmp_path, file, "--field", "City").exit_code == 2


def test_extra_columns_are_sent_along_in_any_order(kinesis, tmp_path):
    header = "Note,Mean Travel Time (Seconds),Date Range,Destination Movement ID,Origin Movement ID"
    row = '"x, y",12,"07/31/2016 - 08/28/2016, Every day, Daily Average",2,1'
    (tmp_path / "any.csv").write_text(f"{header}\n{row}\n")
    assert produce(tmp_path, str(tmp_path / "any.csv")).exit_code == 0
    ((key, data),) = kinesis.accepted
    assert key == "|1|2"
    assert json.loads(data) == {
        "Note": "x, y",
        "Mean Travel Time (Seconds)": "12",
        "Date Range": "07/31/2016 - 08/28/2016, Every day, Daily Average",
        "Destination Movement ID": "2",
        "Origin Movement ID": "1",
    }


def test_a_file_without_a_required_column_stops_the_run_before_anything_is_sent(kinesis, tmp_path):
    write_sample(5, tmp_path / "data", cities=1)
    (tmp_path / "data" / "z.csv").write_text("Origin Movement ID\n1\n")
    done = produce(tmp_path, str(tmp_path / "data"))
    assert isinstance(done.exception, TerminalError)
    assert "lacks 'Destination Movement ID', 'Date Range', 'Mean Travel Time (Seconds)'" in str(done.exception)
    assert not kinesis.accepted


def test_a_record_over_the_streams_limit_is_rejected_by_its_size(kinesis, tmp_path):
    write_sample(2, tmp_path, cities=1)
    file = tmp_path / "Travel_Times - Paris.csv"
    big = '"1","' + "é" * 600_000 + '","2","b","07/31/2016 - 08/28/2016, Every day, Daily Average",5,1,9\n'
    file.write_text(file.read_text(encoding="utf-8") + big, encoding="utf-8")
    assert produce(tmp_path, str(file)).exit_code == 1
    assert (result_of(tmp_path)["rejected_reasons"], len(kinesis.accepted)) == ({"too_large": 1}, 2)


def test_several_processes_send_each_file_once(kinesis, tmp_path):
    write_sample(2000, tmp_path / "data", cities=4)
    done = produce(tmp_path, str(tmp_path / "data"), "--processes", "2")
    assert done.exit_code == 0, done.output
    assert [file["produced"] for file in result_of(tmp_path)["files"]] == [500] * 4
    assert len(set(kinesis.accepted)) == len(kinesis.accepted) == 2000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "0"], "more than 0"),
        (["--set", "producer.max_in_flight=0"], "producer.max_in_flight"),
        (["--resume"], "nothing to go on with"),
    ],
)
def test_wrong_options_stop_the_run_before_anything_is_sent(arguments, message, kinesis, tmp_path):
    write_sample(5, tmp_path / "data", cities=1)
    done = produce(tmp_path, str(tmp_path / "data"), *arguments)
    assert isinstance(done.exception, ConfigurationError)
    assert message in str(done.exception)
    assert not kinesis.accepted


def test_a_signal_while_arrow_reads_a_block_requests_a_stop():
    block = b'"1","x, y"\n' * 80_000

    def signals() -> None:
        for _ in range(200):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.001)

    with graceful_stop() as stop:
        sender = threading.Thread(target=signals)
        sender.start()
        try:
            while sender.is_alive():
                assert read_columns(block, 2)[0] == len(block)
        finally:
            sender.join()
        assert stop()
