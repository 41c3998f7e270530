"""The OpenAPI documentation of the HTTP API. The schema of a record is derived from the table's contract."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from jobs.schema.columns import Path, SourceColumn, is_number
from jobs.schema.table import TableContract
from jobs.schema.times import EPOCHS, ISO
from jobs.schema.types import INTEGER_BITS, data_type

DESCRIPTION = (
    "Sends records to the stream, from which they reach the lake. The answer is a success once Kinesis has accepted "
    "the records. A record that the table's contract rejects is not sent, and the answer names its invalid fields."
)

# A number may be a numeric text; jobs.schema.values reads it.
_NUMERIC_TEXT = r"^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*$"
_BOOLEAN_TEXT = r"^\s*([tT][rR][uU][eE]|[fF][aA][lL][sS][eE])\s*$"
_JSON_TYPES: dict[str, list[str]] = {
    # Anything else than a text becomes its JSON text.
    "string": ["string", "number", "boolean", "object", "array"],
    "int": ["integer", "string"],
    "long": ["integer", "string"],
    "float": ["number", "string"],
    "double": ["number", "string"],
    "decimal": ["number", "string"],
    "boolean": ["boolean", "string"],
    "date": ["string"],
    "timestamp": ["string"],
    "binary": ["string"],
    "json": ["string", "number", "boolean", "object", "array"],
    # A text may hold the JSON of an array or an object.
    "array": ["array", "string"],
    "map": ["object", "string"],
    "struct": ["object", "string"],
}

_EXAMPLE = {
    "City": "Paris",
    "Origin Movement ID": "9",
    "Origin Display Name": "Arc de triomphe du Carrousel, Paris",
    "Destination Movement ID": "5",
    "Destination Display Name": "0 Quai des Orfèvres, Paris",
    "Date Range": "09/03/2016 - 10/01/2016, Every day, Daily Average",
    "Mean Travel Time (Seconds)": 446,
    "Range - Lower Bound Travel Time (Seconds)": 229,
    "Range - Upper Bound Travel Time (Seconds)": 866,
}
_ACCEPTED = {
    "success": True,
    "accepted": 1,
    "records": [{"sequence_number": "49658…2", "shard_id": "shardId-000000000001"}],
}
_REJECTED = {
    "success": False,
    "error": "1 of 1 records were rejected; none was sent",
    "rejected": [{"index": 0, "errors": [{"reason": "missing_field", "field": "Mean Travel Time (Seconds)"}]}],
    "rejected_count": 1,
}


def _field(column: SourceColumn) -> dict[str, Any]:
    """The JSON schema of a source field: what every accepted value fulfils. The contract may be stricter."""
    if column.on_fail == "null":
        return {"description": column.comment} if column.comment else {}
    if column.on_fail == "warn":  # only a value of another type is rejected
        column = column.model_copy(update={"required": False, "min": None, "max": None, "parse": None})
    kinds, patterns = list(_JSON_TYPES[data_type(column.type).kind]), []
    schema: dict[str, Any] = {"description": column.comment} if column.comment else {}
    if column.parse:
        kinds, patterns = ["string"], [f"^({column.parse.pattern})$"]
    elif is_number(column.type):
        patterns = [_NUMERIC_TEXT]
        bits = INTEGER_BITS.get(column.type)
        lowest = [bound for bound in (column.min, -(1 << bits) if bits else None) if bound is not None]
        highest = [bound for bound in (column.max, (1 << bits) - 1 if bits else None) if bound is not None]
        schema |= ({"minimum": max(lowest)} if lowest else {}) | ({"maximum": min(highest)} if highest else {})
    elif column.true_values or column.false_values:
        kinds = ["boolean", "number", "string"]  # 1.0 is 1
    elif column.type == "boolean":
        patterns = [_BOOLEAN_TEXT]
    elif column.format in EPOCHS:
        kinds, patterns = ["number", "string"], [_NUMERIC_TEXT]
    elif column.format not in (None, ISO):
        kinds = ["string", "number"]  # the digits of yyyyMMdd
    if column.required:
        schema["minLength"] = 1
    else:
        kinds.append("null")
        patterns = [f"^$|{pattern}" for pattern in patterns]
    return schema | {"type": kinds} | ({"pattern": patterns[0]} if patterns else {})


def _is_required(column: SourceColumn) -> bool:
    return column.required and column.on_fail == "reject"


def _object(places: Sequence[tuple[Path, SourceColumn]]) -> dict[str, Any]:
    """The JSON schema of an object with values at the places. What is at none of them is allowed too."""
    below: dict[str, list[tuple[Path, SourceColumn]]] = {}
    for (name, *rest), column in places:
        if isinstance(name, str):
            below.setdefault(name, []).append((tuple(rest), column))
    properties = {name: _place(within) for name, within in below.items()}
    required = [name for name, within in below.items() if any(_is_required(column) for _, column in within)]
    schema: dict[str, Any] = {"required": required, "properties": properties, "additionalProperties": True}
    return schema | ({"type": "object"} if required else {})


def _place(within: Sequence[tuple[Path, SourceColumn]]) -> dict[str, Any]:
    own = [_field(column) for path, column in within if not path]
    inner = [(path, column) for path, column in within if path]
    if inner and all(isinstance(path[0], str) for path, _ in inner):
        own.append(_object(inner))
    return own[0] if len(own) == 1 else {"allOf": own} if own else {}


def post_documentation(contract: TableContract, needs_key: bool, max_records: int) -> dict[str, Any]:
    """The arguments of FastAPI's `post` that describe the request and its responses."""
    record = {"type": "object"} | _object([(column.location, column) for column in contract.record_columns])
    known = all(column.field in _EXAMPLE for column in contract.record_columns if _is_required(column))
    examples = {"one": {"value": _EXAMPLE}, "list": {"value": [_EXAMPLE, _EXAMPLE]}} if known else {}
    parameters: list[dict[str, Any]] = [
        {
            "name": "partial",
            "in": "query",
            "description": "Send the valid records of a list even if others are rejected",
            "schema": {"type": "boolean", "default": False},
        }
    ]
    if needs_key:
        parameters.append({"name": "X-API-Key", "in": "header", "required": True, "schema": {"type": "string"}})
    return {
        "summary": "Send one record, or a list of them",
        "responses": {
            200: _response("Kinesis has accepted every record that was sent", _ACCEPTED),
            400: _response("The body is not JSON, or not gzip although its header says so"),
            401: _response("The API key is missing or wrong"),
            408: {"description": "The request did not arrive in time"},
            413: _response("The body, a record or the number of records is too large"),
            415: _response("The body is not application/json, or its Content-Encoding is not gzip"),
            422: _response("The contract rejects a record; nothing was sent", _REJECTED),
            429: _response("Too many records or large bodies are pending: retry after Retry-After seconds"),
            503: _response(
                "Kinesis did not accept all records in time; the entry of the others is null, send them again"
            ),
        },
        "openapi_extra": {
            "parameters": parameters,
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "oneOf": [
                                record,
                                {"type": "array", "items": record, "minItems": 1, "maxItems": max_records},
                            ]
                        },
                        "examples": examples,
                    }
                },
            },
        },
    }


def _response(description: str, example: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {"example": example} if example else {}
    return {"description": description, "content": {"application/json": content}}


# FastAPI's `responses` of the other routes.
HEALTH_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: _response("Records are accepted"),
    503: _response("The last PutRecords failed"),
}
METRICS_RESPONSES: dict[int | str, dict[str, Any]] = {401: _response("The API key is missing or wrong")}


def page(openapi: dict[str, Any]) -> str:
    """The documentation as an HTML page that loads nothing."""
    parts = [f"<h1>{escape(openapi['info']['title'])}</h1><p>{escape(openapi['info']['description'])}</p>"]
    parts.append('<p>For programs: <a href="openapi.json">openapi.json</a></p>')
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}</p>")
            parts.append(_rows("Parameter", {one["name"]: one for one in operation.get("parameters", [])}))
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for schema in content.get("schema", {}).get("oneOf", [])[:1]:
                parts.append(_rows("Field", schema["properties"], schema["required"]))
            for name, example in content.get("examples", {}).items():
                text = json.dumps(example["value"], indent=2, ensure_ascii=False)
                parts.append(f"<p>Example: {escape(name)}</p><pre>{escape(text)}</pre>")
            parts.append(_rows("Status", operation["responses"]))
    return _PAGE % "\n".join(parts)


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>movement-lake ingest</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse } th, td { text-align: left; vertical-align: top; padding: .2em 1.5em .2em 0 }
pre { overflow-x: auto }
</style>
%s
</html>
"""


def _rows(title: str, described: dict[str, Any], required: Sequence[str] = ()) -> str:
    if not described:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{' (required)' if name in required else ''}"
        f"<td>{escape(one.get('description', ''))}"
        for name, one in described.items()
    )
    return f"<table><tr><th>{title}<th>{rows}</table>"
