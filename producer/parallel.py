"""One run in several processes: each process sends its share of the files as `produce.send` does.

Threads do not help, because the interpreter's lock is the bottleneck. Only a single sender keeps the order of a
partition key, so files that may share keys stay in one process: those with the same fields in their names, if these
fields (the city, for example) are part of the key.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from multiprocessing.context import SpawnContext
from typing import Any

import pyarrow

from jobs.common.errors import ConfigurationError, MovementError, TerminalError
from producer.byte_source import STDIN
from producer.checkpoint import discard_checkpoint
from producer.input_files import InputFile
from producer.produce import ProducePlan, send
from producer.readers import open_reader
from producer.run import ProduceProgress, ProduceResult
from producer.send_queue import SendCounts

_REPORT_EVERY_SECONDS = 0.2


def partition_files(
    exports: Sequence[InputFile], processes: int, key_fields: Sequence[str]
) -> list[tuple[InputFile, ...]]:
    """At most `processes` groups of files of about equal size.

    All files with the same values of `key_fields` are in one group, in their order; without key fields, any file may be
    in any group.
    """
    sharing: dict[tuple[str | None, ...], list[InputFile]] = defaultdict(list)
    for export in exports:
        sharing[tuple(export.fields.get(name) for name in key_fields) or (export.path,)].append(export)
    groups: list[list[InputFile]] = [[] for _ in range(min(processes, len(sharing)))]
    loads = [0] * len(groups)
    for files in sorted(sharing.values(), key=lambda files: -sum(export.size or 0 for export in files)):
        lightest = loads.index(min(loads))
        groups[lightest] += files
        loads[lightest] += sum(export.size or 0 for export in files)
    return [tuple(group) for group in groups if group]


def send_in_processes(
    plan: ProducePlan,
    processes: int,
    *,
    on_progress: Callable[[ProduceProgress], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> ProduceResult:
    """Carries out the plan in up to `processes` processes. Raises what `produce.send` raises.

    Raises ConfigurationError if several processes could not keep the order of a partition key.
    """
    named = plan.contract.file_name.source_fields if plan.contract.file_name else ()
    key_fields = [place[0] for place in plan.contract.key_locations if place[0] in named]
    if plan.settings.producer.keep_order and not key_fields:
        raise ConfigurationError(
            "--processes: the files of a run may share partition keys, because no field of the contract's "
            "stream_partition_key is in its file_name; use one process, or --set producer.keep_order=false"
        )
    if any(export.path == STDIN for export in plan.exports):
        raise ConfigurationError("--processes: standard input is read by one process")
    if plan.settings.producer.keep_order:
        _refuse_own_fields(plan.exports, key_fields)
    groups = partition_files(plan.exports, processes, key_fields if plan.settings.producer.keep_order else ())
    context = multiprocessing.get_context("spawn")
    return _Run(context, plan, groups, on_progress, stop).result()


def _refuse_own_fields(exports: Sequence[InputFile], key_fields: Sequence[str]) -> None:
    """Raises ConfigurationError for a file whose column, not its name, has a field of the partition key."""
    for export in exports:
        with open_reader(export) as reader:
            own = [name for name in key_fields if name in (reader.names or ())]
        if own:
            raise ConfigurationError(
                f"--processes: {export.path} has a column {own[0]!r} of its own, so files may share partition keys; "
                "use one process, or --set producer.keep_order=false"
            )


class _Run:
    def __init__(
        self,
        context: SpawnContext,
        plan: ProducePlan,
        groups: Sequence[tuple[InputFile, ...]],
        on_progress: Callable[[ProduceProgress], None] | None,
        stop: Callable[[], bool],
    ) -> None:
        self._plan, self._on_progress, self._stop = plan, on_progress, stop
        self._messages: Any = context.Queue()
        self._stopping = context.Event()
        self._progress: dict[int, ProduceProgress] = {}
        self._results: dict[int, ProduceResult] = {}
        self._errors: list[BaseException] = []
        rate = None if plan.rate is None else plan.rate / len(groups)
        self._processes = [
            context.Process(
                target=_work,
                # Parts start at 1: a process discards part 0 when it ends, but only the whole run may decide that here.
                args=(
                    replace(plan, exports=group, rate=rate, rejected_before={}),
                    part,
                    self._messages,
                    self._stopping,
                ),
                daemon=True,
            )
            for part, group in enumerate(groups, start=1)
        ]

    def result(self) -> ProduceResult:
        for process in self._processes:
            process.start()
        try:
            while len(self._results) + len(self._errors) < len(self._processes):
                if self._stop() or self._errors:
                    self._stopping.set()
                self._poll()
        finally:
            if len(self._results) + len(self._errors) < len(self._processes):
                for process in self._processes:
                    process.terminate()
            for process in self._processes:
                process.join()
        if self._errors:
            raise self._errors[0]
        return self._sum()

    def _poll(self) -> None:
        try:
            part, message = self._messages.get(timeout=_REPORT_EVERY_SECONDS)
        except queue.Empty:
            for part, process in enumerate(self._processes, start=1):
                if not process.is_alive() and part not in self._results and self._messages.empty():
                    raise TerminalError(
                        f"process {part} of the run died (exit code {process.exitcode}); go on with --resume"
                    ) from None
            return
        if isinstance(message, BaseException):
            self._errors.append(message)
        elif isinstance(message, ProduceResult):
            self._results[part] = message
        else:
            self._progress[part] = message
        if self._on_progress is not None and self._progress:
            self._on_progress(self._sum_progress())

    def _sum_progress(self) -> ProduceProgress:
        parts = self._progress.values()
        return ProduceProgress(
            counts=_sum_counts([part.counts for part in parts]),
            rejected=sum(part.rejected for part in parts),
            read_rows=sum(part.read_rows for part in parts),
            read_bytes=sum(part.read_bytes for part in parts),
            total_bytes=sum(export.size or 0 for export in self._plan.exports),
            seconds=max(part.seconds for part in parts),
            slowed_shards=max(part.slowed_shards for part in parts),
        )

    def _sum(self) -> ProduceResult:
        parts = [self._results[part] for part in sorted(self._results)]
        stopped = any(part.stopped for part in parts)
        if not stopped and self._plan.checkpoint_folder is not None:
            discard_checkpoint(self._plan.checkpoint_folder)
        order = {export.path: at for at, export in enumerate(self._plan.exports)}
        total = ProduceResult(
            stream=self._plan.settings.stream.name,
            produced=sum(part.produced for part in parts),
            files=sorted((file for part in parts for file in part.files), key=lambda file: order[file.file]),
            seconds=max(part.seconds for part in parts),
            counts=_sum_counts([part.counts for part in parts]),
            stopped=stopped,
            journal=str(self._plan.checkpoint_folder) if stopped and self._plan.checkpoint_folder else None,
        )
        for reasons in (self._plan.rejected_before, *(part.rejected_reasons for part in parts)):
            total.add_rejected(reasons)
        total.rejects = str(self._plan.rejects) if total.rejected and self._plan.rejects else None
        return total


def _sum_counts(parts: Sequence[SendCounts]) -> SendCounts:
    return SendCounts(**{each.name: sum(getattr(part, each.name) for part in parts) for each in fields(SendCounts)})


def _work(plan: ProducePlan, part: int, messages: Any, stopping: Any) -> None:
    # A terminal sends Ctrl-C to every process of the run. The parent process tells its children to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pyarrow.enable_signal_handlers(False)
    parent = multiprocessing.parent_process()
    last = 0.0

    def stop() -> bool:
        # After a kill of the parent, a resumed run would send this process's rows again.
        return stopping.is_set() or parent is None or not parent.is_alive()

    def report(progress: ProduceProgress) -> None:
        nonlocal last
        if progress.seconds - last >= _REPORT_EVERY_SECONDS:
            last = progress.seconds
            messages.put((part, progress))

    try:
        messages.put((part, send(plan, on_progress=report, stop=stop, part=part)))
    except MovementError as error:
        # Some boto3 errors do not pickle, and ours may carry one as their cause. The text is enough to act on.
        messages.put((part, type(error)(str(error))))
