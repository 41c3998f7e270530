"""`movement contract`: a first draft from a sample, a trial on a sample, what a change means, and version 2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from movement.cli.console import command_name, err, out, write_result, write_whole
from movement.cli.options import Config, JsonFile, Overrides

if TYPE_CHECKING:
    from movement.contract.check import SampleCheck

app = typer.Typer(no_args_is_help=True, help="The table's contract: the YAML file that describes the columns.")

FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="csv|jsonl|parquet",
        help="The files' format, if neither their content nor their names tell it.",
    ),
]
# The time for reading a stream's sample, in seconds.
STREAM_SECONDS = 30
_SHOWN_FIELDS = 20


@app.command()
def upgrade(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The contract's YAML file, which is rewritten in place.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the new file; change nothing.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Rewrite a contract of version 1 as version 2, with its comments.

    Version 2 names each column once, as a key, and has nested values, decimals and more (docs/contract.md). A contract
    of version 1 goes on working without it. The new file describes the same table: lake and checkpoint stay as they
    are. Safe to repeat.
    """
    from jobs.schema.contract_upgrade import upgraded

    text = file.read_text(encoding="utf-8")
    new = upgraded(text, file)
    if dry_run:
        typer.echo(new, nl=False)
    elif new != text:
        file.write_text(new, encoding="utf-8")
        out.print(f"{file}: rewritten as version 2; the table stays the same", soft_wrap=True)
    else:
        out.print(f"{file}: is version 2 already; see `{command_name()} contract --help`", soft_wrap=True)
    write_result(json_file, {"file": str(file), "changed": new != text})


@app.command()
def check(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The contract's YAML file, or the name of one that ships in conf/.")
    ],
    sample: Annotated[
        list[str] | None,
        typer.Option(
            "--sample",
            metavar="PATH",
            help="Records to try it on: a CSV, JSON lines or Parquet file (the first two also .gz or .zst), a folder "
            "of them, or - for standard input; may be repeated.",
        ),
    ] = None,
    format_: FormatOption = None,
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Try a contract on a sample: rows, rejections by reason with an example, empty columns, and the table's DDL.

    Before you send a record. The files are read and checked as `movement produce` and the stream do it; nothing is
    sent, and no Spark and no AWS is needed. Without a sample it only reads the contract. The exit code is 1 if a record
    is rejected. Warnings name columns that no record fills, and what their source is probably called.
    """
    from dataclasses import asdict

    from jobs.schema.table import load_contract
    from jobs.settings.settings import load_settings
    from movement.contract.check import SampleCheck, check_sample, glue_ddl
    from movement.contract.sample import read_files

    contract = load_contract(file)
    settings = load_settings(config, overrides or [])
    ddl = glue_ddl(contract, settings.database, settings.lake, settings.sink.format)
    found = SampleCheck()
    if sample:
        found = check_sample(contract, read_files(sample, contract, format=format_))
        _print_check(found, contract.rescued_column)
    out.print(escape(ddl), soft_wrap=True)
    write_result(
        json_file,
        {
            "contract": contract.name,
            **asdict(found),
            "rejected": sum(one.count for one in found.rejected.values()),
            "reasons": {reason: asdict(one) for reason, one in found.rejected.items()},
            "always_null": found.always_null,
            "ddl": ddl,
        },
    )
    if found.rejected:
        raise typer.Exit(1)


def _print_check(found: SampleCheck, rescued_column: str) -> None:
    rejected = sum(one.count for one in found.rejected.values())
    parts = f" in {found.partitions:,} partition{'s' if found.partitions != 1 else ''}" if found.partitions else ""
    err.print(f"{found.rows:,} rows: {found.accepted:,} accepted{parts}, {rejected:,} rejected", soft_wrap=True)
    for reason, one in sorted(found.rejected.items(), key=lambda item: -item[1].count):
        what = " = ".join(repr(part) for part in (one.field, one.value) if part is not None)
        err.print(f"  [red]{reason}[/] {one.count:,}: {escape(one.where)}: {escape(what)}", soft_wrap=True)
    for counts, text in ((found.nulled, "became null"), (found.warned, "stayed although they failed")):
        for check, count in sorted(counts.items(), key=lambda item: -item[1]):
            err.print(f"  [yellow]{escape(check)}[/]: {count:,} values {text} (on_fail)", soft_wrap=True)
    for warning in found.warnings:
        err.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True)
    for name, count in list(found.unnamed.items())[:_SHOWN_FIELDS]:
        err.print(f"  field {escape(repr(name))} of {count:,} records has no column: kept in {rescued_column}")
    if len(found.unnamed) > _SHOWN_FIELDS:
        err.print(f"  … and {len(found.unnamed) - _SHOWN_FIELDS:,} more fields without a column (--json lists them)")


@app.command()
def init(
    sample: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SAMPLE…]",
            help="CSV, JSON lines or Parquet files (the first two also .gz or .zst); folders of them; - for standard "
            "input.",
        ),
    ] = None,
    from_stream: Annotated[
        str | None,
        typer.Option("--from-stream", metavar="NAME", help="Instead of files: the oldest records of this stream."),
    ] = None,
    records: Annotated[
        int, typer.Option("--records", metavar="N", min=1, help="Read at most about N records, and 30 s of a stream.")
    ] = 100_000,
    format_: FormatOption = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The contract's name. Default: the sample's.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the contract to FILE, not to the terminal.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Draft a contract from a sample: columns, types, what is never null, partitions and keys.

    The first step with a stream of your own (docs/your-own-stream.md). The draft accepts every record of the sample;
    what the sample cannot tell is a comment: money as an exact decimal, times in epoch milliseconds, texts that are
    numbers. Read it, edit it, and try it with `contract check`.
    """
    from jobs.common.errors import ConfigurationError
    from movement.contract.draft import contract_name, draft_contract
    from movement.contract.sample import read_files, read_stream

    if bool(sample) == bool(from_stream):
        raise ConfigurationError("give the files of a sample, or --from-stream NAME, one of the two")
    if output is not None and output.exists() and not force:
        raise ConfigurationError(f"{output}: exists; --force overwrites it, another --output keeps it")
    if from_stream:
        parts = list(read_stream(from_stream, records=records, seconds=STREAM_SECONDS))
        origin = f"stream {from_stream}"
    else:
        parts = list(read_files(sample or [], None, format=format_, limit=records))
        origin = ", ".join(sample or [])
    draft = draft_contract(
        [record for part in parts for record in part.records],
        name or contract_name(from_stream or (sample or [""])[0]),
        origin,
    )
    rejected = [*(f"{where}: {why}" for part in parts for where, why in part.rejected), *map(str, draft.unreadable)]
    if output is None:
        typer.echo(draft.text, nl=False)
    else:
        write_whole(output, draft.text.encode("utf-8"))
        err.print(f"{output}: {len(draft.contract.columns)} columns from {draft.records:,} records", soft_wrap=True)
    if rejected:
        err.print(f"[yellow]{len(rejected):,} are no records[/], such as {escape(rejected[0])}", soft_wrap=True)
    write_result(
        json_file,
        {
            "contract": draft.contract.name,
            "file": str(output) if output else None,
            "records": draft.records,
            "unreadable": len(rejected),
            "columns": {column.column: column.type for column in draft.contract.columns},
            "partition_by": list(draft.contract.partition_by),
            "text": draft.text,
        },
    )


@app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The contract that the lake has now.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The contract that is to follow.")],
    config: Config = None,
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Say what changes from one contract to another, and whether a lake with data takes it.

    Before you deploy a changed contract. The code of the job's start decides (docs/evolution.md); `--set
    sink.format=delta` asks for a Delta table. The exit code is 0 if the job would start with the new contract, 1 if it
    would refuse it on a lake with data.
    """
    from dataclasses import asdict

    from jobs.schema.table import load_contract
    from jobs.settings.settings import load_settings
    from movement.contract.diff import changes

    settings = load_settings(config, overrides or [])
    found = changes(load_contract(old), load_contract(new), settings.sink.format)
    for change in found:
        colour = "red" if change.refused else "green"
        out.print(f"{escape(change.where)}: {escape(change.what)} [{colour}]({change.effect})[/]", soft_wrap=True)
    refused = any(change.refused for change in found)
    if not found:
        out.print("no change")
    elif refused:
        err.print("a lake with data refuses this; docs/evolution.md says what to do instead")
    write_result(json_file, {"refused": refused, "changes": [asdict(change) for change in found]})
    if refused:
        raise typer.Exit(1)
