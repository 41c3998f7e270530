"""The OpenAPI documentation of the HTTP API. The schema of a record is derived from the table's contract."""

from __future__ import annotations

from typing import Any

from jobs.schema.table import TableContract

DESCRIPTION = (
    "Sends records to the stream, from which they reach the lake. The answer is a success once Kinesis has accepted "
    "the records. A record that the table's contract rejects is not sent, and the answer names its invalid fields."
)

_JSON_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "int": {"type": ["integer", "string"], "format": "int32"},
    "long": {"type": ["integer", "string"], "format": "int64"},
    "double": {"type": ["number", "string"], "format": "double"},
    "boolean": {"type": ["boolean", "string"]},
    "date": {"type": "string", "format": "date"},
    "timestamp": {"type": "string", "format": "date-time"},
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
}


def post_documentation(contract: TableContract, needs_key: bool) -> dict[str, Any]:
    """The arguments of FastAPI's `post` that describe the request and its responses."""
    record = {
        "type": "object",
        "required": [column.source for column in contract.columns if column.required],
        "properties": {
            column.source: {
                **_JSON_TYPES[column.type],
                **({"description": column.comment} if column.comment else {}),
                **({"pattern": f"^{column.parse.pattern}$"} if column.parse else {}),
                **({"minimum": column.min} if column.min is not None else {}),
                **({"maximum": column.max} if column.max is not None else {}),
            }
            for column in contract.columns
        },
        "additionalProperties": True,
    }
    known = all(column.source in _EXAMPLE for column in contract.columns if column.required)
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
            400: _response("The body is not JSON"),
            401: _response("The API key is missing or wrong"),
            413: _response("The body, or a record, is too large"),
            422: _response("The contract rejects a record; nothing was sent", _REJECTED),
            429: _response("Too many records are pending: retry after Retry-After seconds"),
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
                        "schema": {"oneOf": [record, {"type": "array", "items": record}]},
                        "examples": examples,
                    }
                },
            },
        },
    }


def _response(description: str, example: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {"example": example} if example else {}
    return {"description": description, "content": {"application/json": content}}
