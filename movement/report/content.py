"""Encodes `model` for the page's script: one JSON object, and blobs of packed numbers that the script decodes later.

assets/*.js reads the keys. The JSON names the blobs; a blob's bytes are raw deflate.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from movement.report.geometry import outlines
from movement.report.model import NONE, City, Gold, GoldTable, Ints, Pipeline, ReportData, Slice
from movement.report.packing import deflate, pack_columns

# Upper bounds of the histogram of file sizes, in bytes.
SIZE_CLASSES = (64 * 1024, 1024**2, 16 * 1024**2, 64 * 1024**2, 256 * 1024**2)


@dataclass(frozen=True)
class Content:
    """The page's data: `meta` becomes JSON, `blobs` are by name."""

    meta: dict[str, Any]
    blobs: dict[str, bytes]


def content_of(data: ReportData) -> Content:
    """Encodes a whole report."""
    blobs: dict[str, bytes] = {}
    meta = {
        "generated": _timestamp(data.generated_at),
        "stream": data.stream,
        "lake": data.lake,
        "database": data.database,
        "live": False,
        "problem": None,
        "map": data.has_map,
        "tables": tables_meta(data.tables),
        "gold": gold_meta(data.gold, blobs) if data.gold else None,
        "pipeline": pipeline_meta(data.pipeline),
    }
    return Content(meta, blobs)


def gold_meta(gold: Gold, blobs: dict[str, bytes]) -> dict[str, Any]:
    """The gold tables' part of the JSON; adds their blobs to `blobs`."""
    tasks: list[tuple[dict[str, Any], Callable[[], dict[str, Any]]]] = []
    cities = []
    for city_number, city in enumerate(gold.cities):
        entry: dict[str, Any] = {"name": city.name}
        tasks.append((entry, _zones_task(city, f"z{city_number}", blobs)))
        slices: list[dict[str, Any]] = []
        for number, part in enumerate(city.slices):
            described = _described(part)
            tasks.append((described, _slice_task(part, len(city.zones.ids), f"s{city_number}-{number}", blobs)))
            slices.append(described)
        entry["slices"] = slices
        cities.append(entry)
    # Deflate releases the interpreter's lock, so threads help.
    with ThreadPoolExecutor() as pool:
        for (target, _), found in zip(tasks, pool.map(lambda task: task[1](), tasks), strict=True):
            target.update(found)
    return {
        "version": gold.version,
        "cities": cities,
        "rows": gold.rows,
        "total": gold.total,
        "left_out": gold.left_out,
    }


def _zones_task(city: City, name: str, blobs: dict[str, bytes]) -> Callable[[], dict[str, Any]]:
    def encode() -> dict[str, Any]:
        zones = city.zones
        blobs[name] = deflate(json.dumps([zones.ids, zones.names], ensure_ascii=False).encode("utf-8", "replace"))
        found: dict[str, Any] = {"zones": len(zones.ids), "zones_blob": name, "map": None}
        drawn = outlines(zones.geometry)
        if drawn is not None:
            blobs[f"{name}g"] = drawn.content
            found["map"] = {
                "blob": f"{name}g",
                "columns": drawn.headers,
                "width": drawn.size[0],
                "height": drawn.size[1],
                "metres": drawn.metres,
                "drawn": drawn.drawn,
                "unreadable": drawn.unreadable,
            }
        return found

    return encode


def _described(part: Slice) -> dict[str, Any]:
    summary = part.summary
    return {
        "range": part.date_range,
        "start": part.start_date.isoformat() if part.start_date else None,
        "end": part.end_date.isoformat() if part.end_date else None,
        "days": part.day_filter,
        "time": part.time_filter,
        "rows": len(part.mean),
        "total": part.total,
        "summary": vars(summary) if summary else None,
    }


def _slice_task(part: Slice, zones: int, name: str, blobs: dict[str, bytes]) -> Callable[[], dict[str, Any]]:
    def encode() -> dict[str, Any]:
        starts = np.flatnonzero(np.diff(part.origin, prepend=-1))
        columns = [
            part.origin[starts],
            np.diff(starts, append=len(part.origin)),
            # Differences between neighbours, modulo the number of zones: small and never negative.
            np.diff(part.destination, prepend=0) % max(zones, 1),
            part.mean,
            _distance(part.mean, part.lower),
            _distance(part.upper, part.mean),
        ]
        headers, blobs[name] = pack_columns(columns)
        return {"blob": name, "columns": headers}

    return encode


def _distance(greater: Ints, lesser: Ints) -> Ints:
    """The difference of two times; `NONE` if either is missing."""
    return np.where((greater == NONE) | (lesser == NONE), NONE, greater - lesser)


def tables_meta(tables: list[GoldTable]) -> list[list[Any]]:
    """The gold tables' part of the JSON: name, kind, comment, rows, files and bytes of each."""
    return [[one.name, one.kind, one.comment, one.rows, one.files, one.bytes] for one in tables]


def pipeline_meta(pipeline: Pipeline) -> dict[str, Any]:
    """The pipeline's part of the JSON: a list for each figure of the batches."""
    batches = pipeline.batches
    classes = np.histogram(pipeline.sizes, [0, *SIZE_CLASSES, 2**62])[0]
    return {
        "batches": {
            "name": [f"{batch.query}-{batch.number}" for batch in batches],
            "finished": [_timestamp(batch.finished_at) for batch in batches],
            "duration": [round((batch.finished_at - batch.started_at).total_seconds(), 3) for batch in batches],
            "read": [batch.read for batch in batches],
            "read_bytes": [batch.read_bytes for batch in batches],
            "processed": [batch.processed for batch in batches],
            "quarantined": [batch.quarantined for batch in batches],
            "replayed": [batch.replayed for batch in batches],
            "lag": [batch.lag for batch in batches],
        },
        "total": pipeline.batches_total,
        "alarms": [alarm for batch in batches for alarm in batch.alarms][-20:],
        "reasons": pipeline.reasons,
        "partitions": [[one.name, one.files, one.bytes, one.rows] for one in pipeline.partitions],
        "layers": {name: list(figures) for name, figures in pipeline.layers.items()},
        "sizes": {"classes": list(SIZE_CLASSES), "files": classes.tolist()},
        "listed_all": pipeline.listed_all,
        "batch_runs": pipeline.batch_runs,
        "parity": pipeline.parity,
    }


def _timestamp(time: datetime) -> float:
    """Seconds since 1970."""
    return round(time.timestamp(), 3)
