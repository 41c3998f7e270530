"""An operator's night: between batches somebody restores, trims or empties the checkpoint and the lake, expires ledger
entries, drops what the catalog names, reshards the stream, deletes and creates it again, and kills the job, in any
order. Every record is in the lake once, and the catalog names its file, or the job has said no.

Without Spark (`CheckpointedJob`). The job's error names an option; the operator follows it. If that
is `--start-from checkpoint`, records that were in a lake which is gone are missing: the error has said so.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from moto import mock_aws

from jobs.common.aws import client
from jobs.common.errors import TerminalError
from jobs.stream.resume import START_FROM, StartFrom
from spark_kinesis.errors import DataLossError
from tests.helpers.checkpointed_query import KILLS, CheckpointedJob
from tests.helpers.examples import examples
from tests.helpers.operator import Operator
from tests.helpers.scripted import ScriptedStream

if TYPE_CHECKING:
    from mypy_boto3_glue import GlueClient


class Night(RuleBasedStateMachine):
    """One night. `table_format` and `glue` are set by the test."""

    table_format = "parquet"
    glue: GlueClient | None = None

    @initialize(shards=st.integers(1, 3), seed=st.integers(0, 2**16), first=st.integers(0, 20))
    def begin(self, shards: int, seed: int, first: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.job = CheckpointedJob(ScriptedStream(shards, seed=seed), self.folder, self.table_format, self.glue)
        self.count = 0
        self.were_in_a_lake: set[int] = set()
        self.may_be_missing: set[int] = set()
        self.of_a_deleted_stream: set[int] = set()
        self.created_again = False
        self.refused: str | None = None
        self.operator = Operator(self.folder)
        self.put(first)
        self.run(2)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            try:
                self.end()
            finally:
                shutil.rmtree(self.folder)

    def end(self) -> None:
        """Morning: one more record, and the job runs until it has read all."""
        self.put(1)
        self._run(lambda option: self.job.run(option))
        if self.refused is None:
            self.check()

    def check(self) -> None:
        found = Counter(self.job.rows())
        doubled = {number: times for number, times in found.items() if times > 1}
        missing = set(range(self.count)) - set(found) - self.may_be_missing
        assert not doubled, doubled
        assert not missing, missing
        if self.glue is not None:
            assert not self.job.unregistered()

    @rule(count=st.integers(1, 12))
    def put(self, count: int) -> None:
        self.job.put(*range(self.count, self.count + count))
        self.count += count

    @rule(pick=st.integers(0, 100))
    def split(self, pick: int) -> None:
        shards = self.job.stream.open
        if len(shards) < 6:
            self.job.stream.split(shards[pick % len(shards)].shard_id)

    @rule(shards=st.integers(1, 3), seconds=st.sampled_from([0.002, 5, 3600]), chance=st.integers(0, 5))
    def create_the_stream_again(self, shards: int, seconds: float, chance: int) -> None:
        if chance > 0:
            return  # seldom: it ends most stories
        self.job.stream = self.job.stream.created_again(shards, seconds)
        self.created_again = True
        self.of_a_deleted_stream |= set(range(self.count))

    @precondition(lambda self: self.glue is not None)
    @rule(what=st.sampled_from(["partitions", "processed", "database"]))
    def drop_from_catalog(self, what: str) -> None:
        assert self.glue is not None
        self.operator.drop_from_catalog(self.glue, self.job.settings.database, what)

    @precondition(lambda self: self.refused is None)
    @rule(batches=st.integers(1, 4))
    def run(self, batches: int) -> None:
        self._run(lambda option: self.job.run(option, batches=batches))

    @precondition(lambda self: self.refused is None)
    @rule(place=st.sampled_from(KILLS))
    def run_and_kill(self, place: str) -> None:
        self._run(lambda option: self.job.run(option, kill=place))

    def _run(self, run: Callable[[StartFrom | None], object]) -> None:
        """Starts the job; if it refuses, once more with the first option that its error names and that is exact."""
        if self.job.knows_nothing():  # a new job: what the deleted stream held is nothing to it
            self.may_be_missing |= self.of_a_deleted_stream
        try:
            run(None)
        except DataLossError as error:
            if "deleted and created again" not in str(error) or not self.created_again:
                raise
            self.refused = str(error)
        except TerminalError as error:
            option = next((each for each in START_FROM[:2] if f"--start-from {each}" in str(error)), None)
            if option is None:
                self.refused = str(error)
                return
            if option == "checkpoint":
                self.may_be_missing |= self.were_in_a_lake - set(self.job.rows())
            try:
                run(option)
            except (TerminalError, DataLossError) as final:
                self.refused = str(final)

    @rule(name=st.sampled_from(["checkpoint", "lake"]))
    def back_up(self, name: str) -> None:
        self.operator.back_up(name)

    @rule(name=st.sampled_from(["checkpoint", "lake"]), pick=st.integers(0, 100))
    def restore(self, name: str, pick: int) -> None:
        self.were_in_a_lake |= set(self.job.rows())
        self.operator.restore(name, pick)

    @rule()
    def back_up_both(self) -> None:
        self.operator.back_up_both()

    @rule(pick=st.integers(0, 100))
    def put_back_what_the_job_remembers(self, pick: int) -> None:
        self.operator.put_back_what_the_job_remembers(pick)

    @rule(name=st.sampled_from(["checkpoint", "lake"]))
    def empty(self, name: str) -> None:
        self.were_in_a_lake |= set(self.job.rows())
        self.operator.empty(name)

    @rule(count=st.integers(1, 4))
    def trim_checkpoint(self, count: int) -> None:
        self.operator.trim_checkpoint(count)

    @rule()
    def delete_metadata(self) -> None:
        self.operator.delete_metadata()

    @rule(name=st.sampled_from(["offsets", "commits"]))
    def cut_the_power(self, name: str) -> None:
        self.operator.cut_the_power(name)

    @rule(share=st.sampled_from([0.3, 0.7, 1.0]))
    def expire_ledger_entries(self, share: float) -> None:
        self.operator.expire_ledger_entries(share)


@pytest.mark.parametrize("table_format", ["parquet", "delta"])
def test_after_an_operators_night_every_record_is_in_the_lake_once_or_the_job_has_refused(table_format: str) -> None:
    tell_stories(150, table_format=table_format)


@pytest.mark.parametrize("table_format", ["parquet", "delta"])
def test_a_first_batch_that_was_planned_and_trimmed_leaves_nothing_to_compare_a_new_stream_with(
    table_format: str,
) -> None:
    night = type("Night", (Night,), {"table_format": table_format})()
    try:
        night.begin(shards=1, seed=0, first=1)
        night.empty("checkpoint")
        night.empty("lake")
        night.run_and_kill("planned")
        night.trim_checkpoint(1)
        night.create_the_stream_again(shards=1, seconds=0.002, chance=0)
        night.end()
        assert night.job.rows() == [1], "a new job reads the new stream; record 0 left with the old one"
    finally:
        shutil.rmtree(night.folder)


def test_files_of_a_query_whose_ledger_was_put_back_to_nothing_stop_a_start_from_the_checkpoint() -> None:
    """The query had a new id, because `metadata` was deleted: its files are not leftovers of the checkpoint's query."""
    night = Night()
    try:
        night.begin(shards=1, seed=0, first=1)
        night.empty("lake")
        night.back_up_both()
        night.delete_metadata()
        night.put(1)
        night.run(3)
        assert night.job.rows() == [1]
        night.put_back_what_the_job_remembers(0)
        night.end()
        assert night.refused is not None
        assert "no ledger of their query" in night.refused
        assert night.job.rows() == [1]
    finally:
        shutil.rmtree(night.folder)


def test_after_an_operators_night_the_catalog_names_every_file(aws_environment: object) -> None:
    with mock_aws():
        tell_stories(15, glue=client("glue"))


def tell_stories(count: int, **settings_of_the_night: object) -> None:
    run_state_machine_as_test(
        type("Night", (Night,), settings_of_the_night),
        settings=settings(
            max_examples=examples(count),
            stateful_step_count=20,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
