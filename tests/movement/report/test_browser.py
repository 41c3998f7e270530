"""The page in headless Chromium, with mouse, keyboard and touch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from fastapi import FastAPI
from selenium.webdriver.common.keys import Keys

from jobs.settings.settings import load_settings
from movement.cli.report import write_report
from movement.report.live import router
from tests.helpers.browser import Browser, browser
from tests.helpers.clicks import CLICKS_YAML
from tests.helpers.gold_tables import corridor, of_exports, square, write_gold
from tests.helpers.report_lakes import add_batch
from tests.helpers.serving import serving

pytestmark = pytest.mark.aws

SUMMER = "07/31/2016 - 08/28/2016, Every day, Daily Average"
PEAK = "07/31/2016 - 08/28/2016, Weekdays, AM Peak"
AUTUMN = "09/03/2016 - 10/01/2016, Every day, Daily Average"
HOSTILE = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture
def page(chromium: Browser) -> Iterator[Browser]:
    """A browser. At the end, its page must have an empty console and requests to its own server only."""
    yield chromium
    assert chromium.console() == []
    own = re.match(r"file:|http://127\.0\.0\.1:\d+", chromium.driver.current_url)
    assert own is not None
    asked = chromium.requests()
    assert [address for address in asked if not address.startswith((own[0], "data:"))] == []


def zone(column: int, row: int) -> str:
    """The name of a zone of the grid; 0, 0 is in the south-west."""
    return f"Zone {column}{row}, Gridville"


def grid(minutes: int = 0, date_range: str = SUMMER) -> list[dict[str, Any]]:
    """A city of nine square zones on the equator, "11" in the middle. From 11 and 00 to every zone, a minute more
    for each step east and ten for each step north; bounds are half and double."""
    found = []
    for start in ("11", "00"):
        for column in range(3):
            for row in range(3):
                mean = 60 * (minutes + column + 10 * row + (0 if start == "11" else 2)) + 60
                found.append(
                    corridor(
                        "Gridville",
                        start,
                        f"{column}{row}",
                        mean,
                        lower=mean // 2,
                        upper=mean * 2,
                        date_range=date_range,
                        origin_name=zone(int(start[0]), int(start[1])),
                        destination_name=zone(column, row),
                        origin_geometry=square(int(start[0]) * 0.1, int(start[1]) * 0.1, 0.1),
                        destination_geometry=square(column * 0.1, row * 0.1, 0.1),
                    )
                )
    return found


def flat() -> list[dict[str, Any]]:
    """A city without outlines, with markup in its names."""
    return [
        corridor("Flatland <b>", "1", str(n), 100 * n, lower=90, upper=1000, date_range=AUTUMN,
                 origin_name="Start & <i>Stop</i>", destination_name=HOSTILE if n == 2 else f"Place {n}, Flat")
        for n in range(2, 402)
    ]  # fmt: skip


def written(folder: Path, rows: list[dict[str, Any]] | None = None, *overrides: str) -> str:
    """The address of a page with these rows."""
    lake = folder / "lake"
    lake.mkdir(exist_ok=True)
    if rows is not None:
        write_gold(lake, rows)
    write_report(load_settings(None, [f"lake={lake}", *overrides]), folder / "report.html")
    return (folder / "report.html").as_uri()


def place(page: Browser, column: int, row: int) -> tuple[float, float]:
    """A zone's position on the map, which is centred with a margin of 22 pixels."""
    width, height = page.script("const m = document.getElementById('map'); return [m.clientWidth, m.clientHeight]")
    side = (min(width, height) - 44) / 3
    return width / 2 + (column - 1) * side, height / 2 - (row - 1) * side


def colour_at(page: Browser, column: int, row: int) -> list[int]:
    """The map's colour in a zone, next to the middle, where the origin's mark is."""
    x, y = place(page, column, row)
    pixel: list[int] = page.script(
        "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {"
        "const map = document.getElementById('map'), copy = document.createElement('canvas').getContext('2d');"
        "copy.drawImage(map, arguments[0] * devicePixelRatio, arguments[1] * devicePixelRatio, 1, 1, 0, 0, 1, 1);"
        "done([...copy.getImageData(0, 0, 1, 1).data].slice(0, 3)); })))",
        x + 20,
        y + 20,
    )
    return pixel


def table(page: Browser) -> dict[str, list[str]]:
    """The visible rows of the table: mean, lower and upper by name."""
    found: list[list[str]] = page.script(
        "const name = (cell) => [...cell.querySelectorAll('button, span, small')].map((e) => e.textContent).join(', ');"
        "return [...document.querySelectorAll('#view-table tbody tr')].map((row) =>"
        " [...row.children].map((cell, i) => i ? cell.textContent : name(cell)))"
    )
    return {cells[0]: cells[1:] for cells in found}


def test_a_city_an_origin_and_a_destination_by_mouse(page: Browser, tmp_path: Path) -> None:
    page.open(written(tmp_path, [*grid(), *flat()]))
    assert page.find("#city").get_attribute("value") == "1", "a city with a map is shown first"

    near, far = colour_at(page, 0, 0), colour_at(page, 2, 2)
    assert sum(near) > sum(far), "near is bright, far is dark"
    page.point("#map", *place(page, 2, 1))
    assert page.find("#card").text.splitlines() == ["Zone 21", "Gridville", "15 min", "7:30 to 30:00, mean 15:00"]
    page.point("#map", *place(page, 0, 0), click=True)

    assert page.find("#origin").get_attribute("value") == zone(0, 0)
    assert table(page)["Zone 00, Gridville"][0] == "3:00"
    page.point("#map", *place(page, 2, 2), click=True)
    assert "No travel times from Zone 22" in page.text("#stage-note"), "it is no origin"
    assert page.find("#origin").get_attribute("value") == zone(0, 0)


def test_the_date_range_changes_the_figures_and_keeps_the_origin(page: Browser, tmp_path: Path) -> None:
    page.open(written(tmp_path, [*grid(), *grid(30, PEAK), *grid(5, AUTUMN)]))
    page.point("#map", *place(page, 0, 0), click=True)
    groups = {group.get_attribute("label"): group.text.split("\n") for group in page.all("#range optgroup")}
    assert list(groups) == ["3 Sept – 1 Oct 2016", "31 Jul – 28 Aug 2016"], "the newest first"
    assert table(page)["Zone 00, Gridville"][0] == "8:00"

    page.choose("#range", "Weekdays · AM Peak")
    page.wait(lambda: table(page)["Zone 00, Gridville"][0] == "33:00", "the other range's figures")

    assert page.find("#origin").get_attribute("value") == zone(0, 0)


def test_an_origin_is_found_by_typing(page: Browser, tmp_path: Path) -> None:
    page.open(written(tmp_path, grid()))
    assert page.find("#origin").get_attribute("value") in (zone(0, 0), zone(1, 1))
    for wanted, typed in ((zone(0, 0), "GRID 00"), (zone(1, 1), "zone 11")):
        page.find("#origin").click()
        page.keys(typed)
        assert [item.text for item in page.all("#origin-list [role=option] b")] == [wanted.split(",")[0]]
        page.keys(Keys.ENTER)
        assert page.find("#origin").get_attribute("value") == wanted
    page.keys(Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.ENTER)
    assert page.find("#origin").get_attribute("value") == zone(0, 0)
    page.find("#origin").click()
    page.keys("nowhere")
    assert page.find("#origin-list").text == "No zone with this name"
    page.keys(Keys.ESCAPE)
    assert page.find("#origin").get_attribute("value") == zone(0, 0)


def test_all_of_it_by_keyboard(page: Browser, tmp_path: Path) -> None:
    page.open(written(tmp_path, grid()))
    reached = []
    for _ in range(30):
        page.keys(Keys.TAB)
        reached.append(page.script("return document.activeElement.id"))
        if reached[-1] == "map":
            break
    assert [each for each in reached if each in ("theme", "city", "origin", "range", "tab-map", "map")] == [
        "theme", "city", "origin", "range", "tab-map", "map",
    ]  # fmt: skip

    page.find("#origin").click()
    page.keys("zone 11", Keys.ENTER)
    page.script("document.getElementById('map').focus()")
    page.keys(Keys.ARROW_RIGHT)
    assert page.text("#spoken") == "Zone 21, Gridville: 13 min, between 7 min and 26 min"
    page.keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_DOWN)
    assert page.find("#card").text.startswith("Zone 00")
    page.keys(Keys.ENTER)
    assert page.find("#origin").get_attribute("value") == zone(0, 0)
    page.keys("+", "-", Keys.ESCAPE)
    assert not page.find("#card").is_displayed()
    page.find("#tab-map").send_keys(Keys.ARROW_RIGHT)
    assert page.script("return document.activeElement.id") == "tab-table"
    assert page.find("#view-table").is_displayed()


def test_light_and_dark_follow_the_system_until_one_is_chosen(page: Browser, tmp_path: Path) -> None:
    address = written(tmp_path, grid())

    def brightness() -> int:
        found = page.script("return getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", found)[:3]))

    page.open(address, dark=True)
    assert brightness() < 200
    page.open(address)
    assert brightness() > 600
    page.find("#theme").click()
    assert brightness() < 200
    assert page.find("#theme").get_attribute("aria-label") == "Switch to light theme"
    page.find("#theme").click()
    assert brightness() > 600


def test_a_city_without_outlines_is_a_table_to_sort_and_filter(page: Browser, tmp_path: Path) -> None:
    page.open(written(tmp_path, [*grid(), *flat()]))
    page.choose("#city", "Flatland <b>")
    page.wait(lambda: "no map" in page.text("#stage-note"), "the other city")

    assert not page.find("#view-map").is_displayed()
    assert len(table(page)) == 250
    page.find("#view-table .quiet").click()
    assert len(table(page)) == 400
    assert next(iter(table(page))) == HOSTILE
    page.find(".column-mean button").click()
    assert next(iter(table(page).items())) == ("Place 401, Flat", ["668:20", "1:30", "16:40"])
    assert page.find(".column-mean").get_attribute("aria-sort") == "descending"
    page.find("#filter").send_keys("PLACE 401")
    assert list(table(page)) == ["Place 401, Flat"]
    assert page.text(".table-count") == "1 of 400 destinations"
    page.find("#filter").send_keys("x")
    assert "No destination" in page.text("#view-table tbody")


def test_names_from_the_data_stay_text(page: Browser, tmp_path: Path) -> None:
    rows = grid()
    for row in rows:
        row["origin_name"] = row["destination_name"] = HOSTILE
    add_batch(tmp_path / "lake", 0, rejected={HOSTILE: 3}, alarms=[HOSTILE])
    page.open(written(tmp_path, [*rows, *flat()]))
    page.point("#map", *place(page, 1, 1))
    page.find("#origin").click()

    for selector in ("#card", "#origin-list", "#pipeline", "#facts", "#view-table"):
        assert "<img src=x" in page.text(selector), selector
    assert page.script("return window.hacked") is None
    assert page.all("main img, main script, main i i, #city b") == []


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_scrolls_in_one_direction_only(page: Browser, tmp_path: Path, width: int) -> None:
    add_batch(tmp_path / "lake", 0, rejected={"a_reason_of_which_the_name_is_long_" * 3: 3}, alarms=["alarm" * 60])
    rows = grid()
    rows[0]["destination_name"] = "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch" * 2
    page.open(written(tmp_path, [*rows, *flat()]), width=width, height=800)

    for tab in ("#tab-table", "#tab-map"):
        page.script("document.querySelector(arguments[0]).click()", tab)
        assert page.script("return document.documentElement.scrollWidth") <= width
    too_wide = page.script(
        "return [...document.querySelectorAll('main *')].filter((e) => !e.closest('.table-scroll, .hidden, svg')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert too_wide == []


def test_an_empty_lake_says_what_to_do(page: Browser, tmp_path: Path) -> None:
    page.open(written(tmp_path))

    assert "No gold tables yet" in page.find("#travel-empty").text
    assert "movement gold" in page.find("#travel-empty").text
    assert "movement stream" in page.find("#pipeline-empty").text
    page.open(written(tmp_path), width=320)
    assert page.script("return document.documentElement.scrollWidth") <= 320
    assert not page.find("#travel-body").is_displayed()


def test_the_page_names_what_it_leaves_out(page: Browser, tmp_path: Path) -> None:
    rows = [*grid(), *grid(5, AUTUMN)]
    page.open(written(tmp_path, rows, "report.max_rows=18"))
    assert "18 of 36 corridors" in page.text("#notices")
    assert SUMMER in page.text("#notices")

    page.open(written(tmp_path, rows, "report.max_rows=27"))
    assert page.text("#notices") == ""
    assert page.text("#stage-note") == ""
    page.choose("#range", "31 Jul – 28 Aug 2016")
    page.wait(lambda: "Cut to 9 of 18 corridors" in page.text("#stage-note"), "a part of the older range")


def test_the_pipelines_figures_are_shown(page: Browser, tmp_path: Path) -> None:
    for number in range(3):
        add_batch(tmp_path / "lake", number, read=1000 * (number + 1), rejected={"not_json": 1} if number else {})
    page.open(written(tmp_path))

    tiles = [tile.text.split("\n") for tile in page.all(".tile")]
    assert [tile[:2] for tile in tiles] == [
        ["Records read", "6,000"], ["Records per second", "1,000"], ["Lag", "–"], ["Rejected", "2"],
        ["Parity", "Not checked"], ["Processed", "2.9 KB"],
    ]  # fmt: skip
    assert [figure.text for figure in page.all("figure.figure figcaption")] == [
        "Records per second", "Batch duration", "Records in a batch",
    ]  # fmt: skip
    assert [value.text for value in page.all("figure.figure output")] == ["1,500", "2.0 s", "3,000"]
    page.script("document.getElementById('pipeline').scrollIntoView({behavior: 'instant'})")
    page.point("figure.figure .chart", 10, 60)
    assert page.find("figure.figure output").text == "500"
    assert "not json" in page.text("#pipeline-body")


def test_every_figure_of_the_real_exports_is_in_the_page(page: Browser, tmp_path: Path, exports: Path) -> None:
    rows = of_exports(exports)
    page.open(written(tmp_path, rows))
    assert page.find("#city").get_attribute("value") == "0", "Boston has outlines"

    while page.script("const more = document.querySelector('#view-table .quiet'); more.click(); return !more.hidden"):
        pass

    def clock(seconds: int) -> str:
        return f"{seconds // 60}:{seconds % 60:02}"

    shown = sorted([name, *figures] for name, figures in table(page).items())
    expected = {
        row["destination_name"]: [clock(row[key]) for key in ("mean", "lower", "upper")]
        for row in rows
        if row["city"] == "Boston"
    }
    # `table` has one row for zones that share a name.
    assert len(shown) == len(expected) > 600
    names = [row["destination_name"] for row in rows if row["city"] == "Boston"]
    assert [[name, *figures] for name, *figures in shown if names.count(name) == 1] == sorted(
        [name, *figures] for name, figures in expected.items() if names.count(name) == 1
    )


def test_a_first_tap_shows_the_figures_and_the_button_starts(page: Browser, tmp_path: Path) -> None:
    page.open(written(tmp_path, grid()), width=390, height=844)
    page.script("document.getElementById('view-map').scrollIntoView({behavior: 'instant', block: 'center'})")
    before = page.find("#origin").get_attribute("value")
    target, name = ((0, 0), zone(0, 0)) if before == zone(1, 1) else ((1, 1), zone(1, 1))
    x, y = place(page, *target)
    page.script(
        "const map = document.getElementById('map'), box = map.getBoundingClientRect();"
        "for (const type of ['pointerdown', 'pointerup']) map.dispatchEvent(new PointerEvent(type, {bubbles: true,"
        " pointerId: 9, pointerType: 'touch', clientX: box.left + arguments[0], clientY: box.top + arguments[1]}))",
        x,
        y,
    )
    assert page.find("#card").text.startswith(name.split(",")[0])
    assert page.find("#origin").get_attribute("value") == before
    page.script("document.querySelector('.card-start').click()")
    assert page.find("#origin").get_attribute("value") == name


def test_the_live_page_follows_the_lake(page: Browser, tmp_path: Path) -> None:
    add_batch(tmp_path, 0, read=100)
    app = FastAPI()
    app.include_router(router(load_settings(None, [f"lake={tmp_path}", "report.refresh_seconds=1"]), lambda _key: True))
    with serving(app) as address:
        page.open(address)
        assert page.text("#state") == "Live"
        assert "No gold tables yet" in page.text("#travel-empty")
        write_gold(tmp_path, [*grid(), *flat()])
        page.wait(lambda: page.find("#travel-body").is_displayed(), "the new tables")
        page.wait(lambda: len(table(page)) == 9, "the city's figures")
        page.choose("#city", "Flatland <b>")
        page.wait(lambda: len(table(page)) == 250, "the other city's figures")
        add_batch(tmp_path, 1, read=200)
        page.wait(lambda: "300" in page.text(".tile"), "the new batch")
        write_gold(tmp_path, [*grid(), *flat()[:5]])
        page.wait(lambda: len(table(page)) == 5, "the changed table")
        assert page.script("return document.getElementById('city').selectedOptions[0].textContent") == "Flatland <b>"


def test_the_live_page_says_what_to_configure_if_the_lake_cannot_be_read(page: Browser, tmp_path: Path) -> None:
    add_batch(tmp_path, 0)
    (tmp_path / "_ledger" / "abc" / "0.json").write_text("{")
    app = FastAPI()
    app.include_router(router(load_settings(None, [f"lake={tmp_path}", "report.refresh_seconds=1"]), lambda _key: True))
    with serving(app) as address:
        page.open(address)

        assert "cannot be read" in page.text("#notices")
        assert page.text("#state") == "Not up to date"
        assert "movement serve --set lake=s3://bucket/prefix" in page.find("#travel-empty").text


def test_a_lake_without_zones_shows_its_pipeline_and_gold_tables(page: Browser, tmp_path: Path) -> None:
    (tmp_path / "clicks.yaml").write_text(CLICKS_YAML)
    for number in range(2):
        add_batch(tmp_path / "lake", number, rejected={"wrong_type": 1})
    rows = pa.table({"user": ["a", "b", "c"]})
    write_deltalake(str(tmp_path / "lake" / "gold" / "users"), rows)
    settings = load_settings(None, [f"lake={tmp_path}/lake", f"contract={tmp_path}/clicks.yaml"])
    write_report(settings, tmp_path / "page.html")
    page.open((tmp_path / "page.html").as_uri())

    assert not page.find("#travel").is_displayed()
    assert not page.find("#travel-link").is_displayed()
    assert page.find("#pipeline-title").is_displayed()
    table = page.find("[aria-label='Gold tables'] table").text
    assert "users latest 3 1 " in table
    assert "per_day aggregate not computed yet" in table
