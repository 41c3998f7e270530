"""`movement cost`: what a stream costs a month, from a dated price file."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from movement.cli.console import out, write_result
from movement.cli.options import JsonFile

if TYPE_CHECKING:
    from movement.cost.estimate import Line, Part, Platform
    from movement.cost.prices import PriceList


class PlatformName(StrEnum):
    """The values of --platform."""

    GLUE = "glue"
    EMR_SERVERLESS = "emr-serverless"
    EMR = "emr"
    FIREHOSE = "firehose"
    FLINK = "flink"


class StreamMode(StrEnum):
    """The values of --stream-mode."""

    ON_DEMAND = "on-demand"
    PROVISIONED = "provisioned"


def cost(
    mb_per_second: Annotated[
        float, typer.Option("--mb-per-second", min=0.001, max=100_000, help="Records in, in 10^6 bytes a second.")
    ] = 1.0,
    record_bytes: Annotated[
        int,
        typer.Option("--record-bytes", min=1, max=10 * 1024 * 1024, help="Bytes of a record. Small records cost more."),
    ] = 415,
    platform: Annotated[
        PlatformName | None,
        typer.Option("--platform", help="Show each line of this platform's bill. Default: compare all platforms."),
    ] = None,
    stream_mode: Annotated[
        StreamMode, typer.Option("--stream-mode", help="Capacity mode of the stream, as the stack's StreamMode.")
    ] = StreamMode.ON_DEMAND,
    retention_hours: Annotated[
        int, typer.Option("--retention-hours", min=24, max=168, help="How long the stream keeps records.")
    ] = 72,
    trigger_seconds: Annotated[
        float, typer.Option("--trigger-seconds", min=1, max=3600, help="stream_job.trigger_seconds of the job.")
    ] = 10.0,
    partitions: Annotated[
        int, typer.Option("--partitions", min=1, help="Partitions that a micro-batch writes to: one file each.")
    ] = 10,
    batch_path: Annotated[
        bool, typer.Option("--batch-path/--no-batch-path", help="Price the batch path beside the stream too.")
    ] = True,
    prices: Annotated[
        Path | None,
        typer.Option(
            "--prices",
            metavar="FILE",
            help="Your own prices, such as another region's. Default: movement/cost/prices.yaml of the package; copy "
            "it and change it.",
        ),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Compute what a stream costs a month on AWS. Reads a price file, asks nobody.

    It prices the stack that movement deploy stack creates, on each platform. Beside it: Firehose that writes the same
    partitions without raw files, and a Flink application that writes the same files. Prices are those of the first
    tier. Not included: logs, queries, Lambda, SQS, the API, traffic out of the region. --platform shows each line.

    Example: movement cost --mb-per-second 10 --record-bytes 415 --platform glue
    """
    from movement.cost.estimate import PLATFORMS, Workload, bill
    from movement.cost.prices import load_prices

    price_list = load_prices(prices)
    workload = Workload(
        mb_per_second,
        record_bytes,
        stream_mode is StreamMode.ON_DEMAND,
        retention_hours,
        trigger_seconds,
        partitions,
        batch_path,
    )
    wanted = PLATFORMS if platform is None else tuple(each for each in PLATFORMS if each == platform.value)
    bills = {name: bill(workload, name, price_list.prices) for name in wanted}
    rows = comparison(bills) if platform is None else details(bills[wanted[0]])
    out.print(escape(f"{markdown(rows)}\n\n{footnote(price_list)}"), soft_wrap=True)
    result: dict[str, Any] = {"as_of": price_list.as_of, "region": price_list.region}
    result["platforms"] = {
        name: {
            "total": round(sum(line.amount for line in lines), 2),
            "lines": [
                {
                    "part": line.part,
                    "what": line.what,
                    "quantity": line.quantity,
                    "unit": line.price.unit,
                    "price": line.price.amount,
                    "amount": round(line.amount, 2),
                    "page": line.price.page,
                }
                for line in lines
            ],
        }
        for name, lines in bills.items()
    }
    write_result(json_file, result)


def comparison(bills: Mapping[Platform, list[Line]]) -> list[list[str]]:
    """Dollars by part and platform, with a head line and the total."""
    from movement.cost.estimate import PARTS

    rows = [["$ a month", *bills]]
    rows += [[part, *(_dollars(_sum(lines, part)) for lines in bills.values())] for part in PARTS]
    return [*rows, ["total", *(_dollars(sum(line.amount for line in lines)) for lines in bills.values())]]


def details(lines: list[Line]) -> list[list[str]]:
    """One platform's lines, with a head line and the total."""
    rows = [["$ a month", "part", "what", "quantity", "$ each", "unit"]]
    for line in lines:
        quantity = f"{line.quantity:,.1f}" if line.quantity < 100 else f"{line.quantity:,.0f}"
        rows.append([f"{line.amount:,.2f}", line.part, line.what, quantity, f"{line.price.amount:g}", line.price.unit])
    return [*rows, [f"{sum(line.amount for line in lines):,.2f}", "total", "", "", "", ""]]


def markdown(rows: list[list[str]]) -> str:
    """The rows as a table in Markdown; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def footnote(prices: PriceList) -> str:
    """Where the prices come from."""
    note = f"Prices of {prices.region} on {prices.as_of}"
    if prices.unread:
        note += f"; {prices.unread} of {len(type(prices.prices).model_fields)} were not read on AWS's pages: check them"
    return note + "."


def _sum(lines: list[Line], part: Part) -> float:
    return sum(line.amount for line in lines if line.part == part)


def _dollars(amount: float) -> str:
    return "-" if amount == 0 else f"{amount:,.0f}"
