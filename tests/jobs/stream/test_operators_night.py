"""An operator's night: between batches somebody restores, trims or empties the checkpoint and the lake, expires ledger
entries, reshards the stream and kills the job, in any order. Every record is in the lake once, or the job has said no.

Without Spark (`CheckpointedJob`). The job's error names an option; the operator follows it. If that
is `--start-from checkpoint`, records that were in a lake which is gone are missing: the error has said so.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from jobs.common.errors import TerminalError
from jobs.stream.resume import START_FROM, StartFrom
from tests.helpers.checkpointed_query import KILLS, CheckpointedJob
from tests.helpers.examples import examples
from tests.helpers.operator import Operator
from tests.helpers.scripted import ScriptedStream


class Night(RuleBasedStateMachine):
    """One night. `table_format` is set by the test."""

    table_format = "parquet"

    @initialize(shards=st.integers(1, 3), seed=st.integers(0, 2**16), first=st.integers(0, 20))
    def begin(self, shards: int, seed: int, first: int) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.job = CheckpointedJob(ScriptedStream(shards, seed=seed), self.folder, self.table_format)
        self.count = 0
        self.were_in_a_lake: set[int] = set()
        self.may_be_missing: set[int] = set()
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

    @rule(count=st.integers(1, 12))
    def put(self, count: int) -> None:
        self.job.put(*range(self.count, self.count + count))
        self.count += count

    @rule(pick=st.integers(0, 100))
    def split(self, pick: int) -> None:
        shards = self.job.stream.open
        if len(shards) < 6:
            self.job.stream.split(shards[pick % len(shards)].shard_id)

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
        try:
            run(None)
        except TerminalError as error:
            option = next((each for each in START_FROM[:2] if f"--start-from {each}" in str(error)), None)
            if option is None:
                self.refused = str(error)
                return
            if option == "checkpoint":
                self.may_be_missing |= self.were_in_a_lake - set(self.job.rows())
            try:
                run(option)
            except TerminalError as final:
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
    kind = type("Night", (Night,), {"table_format": table_format})
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=examples(150),
            stateful_step_count=20,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
