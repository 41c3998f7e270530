"""An HTTP answer that is not a success, as an exception. `api` turns it into the answer."""

from __future__ import annotations

from typing import Any


class HttpError(Exception):
    """Ends the request with this status, the JSON `content` and the headers."""

    def __init__(self, status: int, content: dict[str, Any], **headers: str) -> None:
        super().__init__(f"{status}")
        self.status, self.content = status, content
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def http_error(status: int, error: str, **headers: str) -> HttpError:
    """An HttpError whose content is one sentence."""
    return HttpError(status, {"success": False, "error": error}, **headers)
