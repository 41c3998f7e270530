"""Receives and decodes the body of a POST within limits of bytes and values. `api` uses it.

In: an HTTP request. Out: the body's JSON, decoded. Everything that can be refused by its headers, its size or the
number of its values is refused before it is decoded or checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from fastapi import Request
from isal import isal_zlib

from jobs.settings.api_section import ApiSettings
from producer.api_errors import HttpError, http_error

# Bodies up to this size are not part of the budget, so that single records get through while large bodies use it up.
# uvicorn holds up to 64 KiB of each body anyway.
FREE_BYTES = 64 * 1024

# A decoded value takes up to about 300 bytes of memory, and a body of 5 MB could have 2.5 million of them.
VALUES_PER_RECORD = 12

_SLICE = 256 * 1024
_GZIP = 31  # zlib's wbits for a gzip header and trailer

# A number with a fraction keeps its text: 1.50 stays 1.50.
_decode = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(text.encode("ascii"))).decode


class BodyReader:
    """Reads bodies. All requests of one process share its budget, `api.max_receiving_bytes`."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._max_values = VALUES_PER_RECORD * settings.max_pending_records
        self.receiving_bytes = 0

    @contextmanager
    def reading(self) -> Iterator[Callable[[Request], Any]]:
        """Gives a function that receives a request's body. The bytes count until the block ends.

            with reader.reading() as receive:
                body = await receive(request)

        The function raises HttpError if the body is not JSON by its headers, too large, or not gzip although its
        header says so, and if all bodies together exceed the budget. Starlette's ClientDisconnect: the client has
        gone, or has exceeded `api.receive_seconds`.
        """
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            added = max(0, size - FREE_BYTES) - held
            if self.receiving_bytes + added > self._settings.max_receiving_bytes:
                raise http_error(429, "too many large bodies are being received; try again later", Retry_After="1")
            self.receiving_bytes += added
            held += added

        try:
            yield lambda request: self._receive(request, hold)
        finally:
            self.receiving_bytes -= held

    async def _receive(self, request: Request, hold: Callable[[int], None]) -> bytearray:
        limit = self._settings.max_body_bytes
        headers = request.headers
        require_json(headers.get("content-type", ""))
        expand = _decompressor(headers.get("content-encoding", "").strip().lower())
        announced = headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        body = bytearray()
        async for part in request.stream():
            body += part if expand is None else expand.more(part, limit + 1 - len(body))
            if len(body) > limit:
                raise _too_large(limit)
            if len(body) > FREE_BYTES:
                hold(len(body))
        if expand is not None:
            expand.end()
        return body

    def decode(self, body: bytearray) -> Any:
        """The body's JSON. Raises HttpError if it has too many values, or is not JSON in UTF-8."""
        if _has_more_values(body, self._max_values):
            raise http_error(
                413,
                f"the body has more than {self._max_values} JSON values, {VALUES_PER_RECORD} for each of "
                f"{self._settings.max_pending_records} records; send the records in several requests",
            )
        try:
            return _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise http_error(400, "the body is not JSON in UTF-8") from None


def require_json(content_type: str) -> None:
    """Raises HttpError 415 unless the header says application/json, without a charset or with UTF-8.

    A web page of another origin cannot send this type without asking first (CORS), as it can text/plain.
    """
    kind, _, parameters = content_type.partition(";")
    if kind.strip().lower() == "application/json":
        names = dict(part.strip().lower().partition("=")[::2] for part in parameters.split(";"))
        if names.get("charset", "utf-8").strip('"') in ("utf-8", "utf8"):
            return
    raise http_error(415, f"Content-Type is {content_type[:100]!r}; send application/json in UTF-8")


def _too_large(limit: int) -> HttpError:
    return http_error(413, f"the body is larger than {limit} bytes")


class _Gzip:
    """Decompresses a body while it is received, never beyond the limit."""

    def __init__(self) -> None:
        self._stream = isal_zlib.decompressobj(wbits=_GZIP)

    def more(self, part: bytes, limit: int) -> bytes:
        """The decompressed bytes of the body's next part, at most `limit` of them."""
        try:
            found = self._stream.decompress(part, limit)
        except isal_zlib.error:  # type: ignore[misc]  # isal's types say Exception()
            raise self._broken() from None
        if self._stream.unused_data:
            raise self._broken()
        return found

    def end(self) -> None:
        """Raises HttpError if the end of the gzip stream is missing."""
        if not self._stream.eof:
            raise self._broken()

    @staticmethod
    def _broken() -> HttpError:
        return http_error(400, "Content-Encoding is gzip, and the body is not one complete gzip stream")


def _decompressor(encoding: str) -> _Gzip | None:
    if encoding in ("", "identity"):
        return None
    if encoding == "gzip":
        return _Gzip()
    raise http_error(415, f"Content-Encoding is {encoding[:100]!r}; send gzip or none", Accept_Encoding="gzip")


def _has_more_values(body: bytearray, limit: int) -> bool:
    """Whether the JSON text may have more than `limit` values: those before a syntax error count, too.

    Each value but the first follows a comma or an opening bracket; a field and its value are one.
    """
    if _separators(body) < limit:
        return False
    # Many commas may be in texts, such as geometries. Without escapes, every second part between quotes is a text.
    text = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    found, in_text = 1, False
    for start in range(0, len(text), _SLICE):
        parts = text[start : start + _SLICE].split(b'"')
        found += sum(map(_separators, parts[in_text::2]))
        in_text ^= len(parts) % 2 == 0
        if found > limit:
            return True
    return False


def _separators(text: bytearray) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")
