"""The page of a million corridors: seconds to read and write it, its bytes, seconds until Chromium has painted the map.

    python -m benchmarks.report --json report.json [--rows 1000000]

The gold tables lie in a folder of this machine: one city of 1,000 zones with outlines, corridors between every two of
them, times that follow the distance with noise, which leaves deflate little to find. Medians of three. Without
Chromium (`chromium`, `chromedriver`) the opening is left out, and null.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake

from jobs.settings.settings import load_settings
from movement.cli.report import write_report

TIMES = 3
ZONES = 1000
LIMIT_BYTES, LIMIT_SECONDS = 10_000_000, 2.0


def write_gold(lake: Path, rows: int) -> None:
    """Writes corridors, zones and city_summary of one city, as `movement gold` does."""
    chance = np.random.default_rng(0)
    places = np.column_stack([chance.uniform(-71.3, -70.8, ZONES), chance.uniform(42.2, 42.6, ZONES)])
    ids = pa.array([str(number) for number in range(1, ZONES + 1)])
    names = pa.array([f"{number} Harbour Road, Waterfront, Boston" for number in range(1, ZONES + 1)])
    pairs = np.arange(rows) % (ZONES * ZONES)
    origin, destination = pairs // ZONES, pairs % ZONES
    apart = np.hypot(*(places[origin] - places[destination]).T)
    mean = (120 + apart * 9000 * chance.uniform(0.7, 1.3, rows)).astype(np.int32)
    months = pa.array((np.arange(rows) // (ZONES * ZONES)).astype(np.int32))
    ranges = pa.array(
        [f"01/01/{2016 + n} - 01/31/{2016 + n}, Every day, Daily Average" for n in range(math.ceil(rows / ZONES**2))]
    )
    starts = pa.array([date(2016 + number, 1, 1) for number in range(len(ranges))])
    corridors = pa.table(
        {
            "city": pa.array(["Boston"]).take(pa.array(np.zeros(rows, np.int32))),
            "origin_movement_id": ids.take(pa.array(origin)),
            "destination_movement_id": ids.take(pa.array(destination)),
            "date_range": ranges.take(months),
            "start_date": starts.take(months),
            "end_date": starts.take(months),
            "day_filter": pa.nulls(rows, pa.string()),
            "time_filter": pa.nulls(rows, pa.string()),
            "origin_display_name": names.take(pa.array(origin)),
            "destination_display_name": names.take(pa.array(destination)),
            "mean_travel_time_seconds": mean,
            "lower_bound_travel_time_seconds": (mean * chance.uniform(0.4, 1, rows)).astype(np.int32),
            "upper_bound_travel_time_seconds": (mean * chance.uniform(1, 2.5, rows)).astype(np.int32),
        }
    )
    zones = pa.table(
        {
            "city": ["Boston"] * ZONES,
            "movement_id": ids,
            "display_name": names,
            "geometry": [outline(x, y, chance) for x, y in places],
            "centroid_longitude": places[:, 0],
            "centroid_latitude": places[:, 1],
        }
    )
    write_deltalake(str(lake / "gold" / "corridors"), corridors)
    write_deltalake(str(lake / "gold" / "zones"), zones)


def outline(x: float, y: float, chance: np.random.Generator) -> str:
    """A ring of 60 points around a point."""
    angles = np.linspace(0, 2 * math.pi, 60)
    reach = chance.uniform(0.004, 0.009, 60)
    ring = np.column_stack([x + reach * np.cos(angles), y + reach * np.sin(angles)]).round(6)
    ring[-1] = ring[0]
    return json.dumps(ring.tolist(), separators=(",", ":"))


def seconds_to_open(page: Path) -> dict[str, float] | None:
    """Seconds from the navigation's start until the map was first painted, and until the table could be switched to.

    None without Chromium.
    """
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        return None
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    found: list[float] = []
    for _ in range(TIMES):
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
            options.add_argument(flag)
        browser = webdriver.Chrome(options=options, service=Service(driver))
        try:
            # By the page's own clock, which starts with the navigation.
            browser.execute_cdp_cmd(
                "Page.addScriptToEvaluateOnNewDocument",
                {
                    "source": "addEventListener('painted', (event) => { if (event.target.id === 'map' && "
                    "!window.firstPaint && document.documentElement.dataset.ready) requestAnimationFrame(() => "
                    "{ window.firstPaint = performance.now(); }); }, true)"
                },
            )
            browser.get(page.as_uri())
            deadline = time.monotonic() + 60
            while (painted := browser.execute_script("return window.firstPaint")) is None:
                assert time.monotonic() < deadline, "the map was not painted"  # noqa: S101
                time.sleep(0.01)
            found.append(painted / 1000)
        finally:
            browser.quit()
    return {"median": round(statistics.median(found), 3), "worst": round(max(found), 3)}


def measure(folder: Path, rows: int) -> dict[str, Any]:
    settings = load_settings(None, [f"lake={folder}/lake", f"report.max_rows={rows}"])
    write_gold(Path(settings.lake), rows)
    page = folder / "report.html"
    built = [write_report(settings, page) for _ in range(TIMES)]
    assert built[0]["rows"] == rows, built[0]  # noqa: S101
    opened = seconds_to_open(page)
    return {
        "rows": rows,
        "zones": ZONES,
        "bytes": built[0]["bytes"],
        "bytes_a_row": round(built[0]["bytes"] / rows, 2),
        "seconds_to_build": statistics.median(result["seconds"] for result in built),
        "seconds_to_open": opened,
        "ratios": {
            "bytes / limit": round(built[0]["bytes"] / LIMIT_BYTES, 3),
            "seconds to open / limit": round(opened["median"] / LIMIT_SECONDS, 3) if opened else None,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The page of a million corridors: bytes, seconds to build and to open")
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.rows)
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
