"""Renders the page: template, style, script and data in one HTML text that loads nothing from a network.

Data enters the HTML in one place only, `as_json`, which escapes every character that HTML knows. The
Content-Security-Policy allows the style and the script by their hashes and nothing else; the live page may also
request data from its own server.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any

from movement.report.content import Content

SCRIPTS = ("decode.js", "scale.js", "dom.js", "combobox.js", "charts.js", "map.js", "table.js", "travel.js",
           "pipeline.js", "source.js", "main.js")  # fmt: skip


def render(content: Content) -> str:
    """A page with its data."""
    blobs = "".join(
        f'<script type="text/plain" id="blob-{name}">{base64.b64encode(blob).decode("ascii")}</script>\n'
        for name, blob in content.blobs.items()
    )
    return _fill(content.meta, blobs, live=False)


def render_live() -> str:
    """A page without data, which requests it from its server (movement/report/live.py)."""
    return _fill({"live": True}, "", live=True)


def policy(*, live: bool) -> str:
    """The Content-Security-Policy of a page."""
    style, script = (_hash(text) for text in (_style(), _script()))
    parts = [
        "default-src 'none'",
        f"style-src {style}",
        f"script-src {script}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join([*parts, "connect-src 'self'"] if live else parts)


def as_json(value: Any) -> str:
    """JSON that is safe in a script element: no markup, and no line separator of JavaScript."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode("utf-8", "replace").decode("utf-8")


def _fill(meta: dict[str, Any], blobs: str, *, live: bool) -> str:
    parts = {
        "policy": policy(live=live),
        "style": _style(),
        "data": as_json(meta),
        "blobs": blobs,
        "script": _script(),
    }
    pieces = _asset("page.html").split("%%")
    # Every second piece is a name. One pass, so that a %% in the data is never treated as one.
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))


@cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _style() -> str:
    return _asset("page.css")


@cache
def _script() -> str:
    return '"use strict";\n(() => {\n' + "\n".join(_asset(name) for name in SCRIPTS) + "\n})();\n"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
