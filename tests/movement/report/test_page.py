"""The page's HTML: data never becomes markup, and nothing is loaded from a network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from jobs.lake.store import lake_at
from movement.report.content import Content, content_of
from movement.report.model import City, Gold, ReportData, Slice, Zones
from movement.report.page import as_json, policy, render, render_live
from movement.report.pipeline import PipelineReader
from tests.helpers.report_lakes import add_batch

HOSTILE = "</script><script>alert(1)</script><!--\u2028\u2029&lt; %%script%% \ud800"


def inline(page: str, tag: str) -> str:
    """The text of the only element with this tag and no attributes."""
    (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return str(text)


def test_data_cannot_leave_its_element() -> None:
    page = render(Content({"lake": HOSTILE, HOSTILE: 1}, {}))

    data = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert [json.loads(text)["lake"] for text in data] == [HOSTILE.replace("\ud800", "?")]
    assert not set("<>&\u2028\u2029") & set(data[0])
    assert page.count("<script>") == 1


def test_names_survive_packing(tmp_path: Path) -> None:
    one = np.array([0], np.int64)
    city = City(
        HOSTILE, Zones(["1"], [HOSTILE], [None]), [Slice("r", None, None, None, None, one, one, one, one, one, 1)]
    )
    add_batch(tmp_path, 0, alarms=[HOSTILE.replace("\ud800", "")])
    pipeline = PipelineReader(lake_at(str(tmp_path)), 9).read()

    page = render(content_of(ReportData(datetime.now(UTC), "s", "l", "d", Gold("1", [city], 1, 1), pipeline)))

    assert "alert(1)</script>" not in page


def test_the_policy_allows_this_script_and_this_style_and_no_request() -> None:
    page = render(Content({}, {}))
    (rules,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)

    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        digest = base64.b64encode(hashlib.sha256(inline(page, tag).encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in rules.split("; ")
    assert rules.startswith("default-src 'none'; ")
    assert "unsafe" not in rules
    assert "connect-src" not in rules
    assert "connect-src 'self'" in policy(live=True)


def test_the_page_names_no_address_to_fetch_from() -> None:
    for page in (render(Content({}, {})), render_live()):
        assert set(re.findall(r"https?://[^\s\"'`)]+", page)) == {"http://www.w3.org/2000/svg"}, (
            "SVG's name, not a place"
        )
        assert not re.findall(r"@import|url\(|\ssrc=", page)
        assert "innerHTML" not in page
        assert "insertAdjacentHTML" not in page
        assert "document.write" not in page


def test_json_for_the_page_is_json() -> None:
    value = {"a": [1, None, "é<b>&\u2028"]}

    assert json.loads(as_json(value)) == value
