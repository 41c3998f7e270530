"""Checks JSON documents and makes records of them: the document's own bytes, with the fields of the file's name.

In: a `JsonChunk` of `json_reader` or `parquet_reader`. Out: an `EncodedChunk`, as `record_encoder` makes of CSV rows.
Documents that `json_fast_path` can read are checked as columns, like those of a CSV file. The others are checked by
`RecordParser`, which checks them again when they come from the stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.schema.checks import RecordChecks
from jobs.schema.column_checks import TextColumnChecks
from jobs.schema.record_parser import RecordParser
from jobs.schema.rejections import Rejection
from jobs.schema.table import TableContract
from jobs.schema.values import as_text, is_absent, read_object, value_at
from producer.json_fast_path import read_columns
from producer.json_reader import JsonChunk
from producer.record_encoder import MAX_KEY_CHARACTERS, EncodedChunk, PutRecordsEntry, check_size, partition_key

_encode = msgspec.json.Encoder().encode
_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


class JsonEncoder:
    """Checks and encodes the documents of one file.

    `fields` are added to a document that lacks them. `max_record_bytes` limits data and partition key together.
    `check=False` skips the contract; a document that is not a JSON object in UTF-8 or too large is still rejected.
    """

    def __init__(
        self, contract: TableContract, fields: Mapping[str, str], max_record_bytes: int, check: bool = True
    ) -> None:
        self._parser = RecordParser(contract) if check else None
        self._contract = contract
        self._column_checks: dict[tuple[str, ...], TextColumnChecks] = {}
        self._limit = min(max_record_bytes, contract.max_record_bytes) if check else max_record_bytes
        # A lone surrogate of a name that is not UTF-8 ends up in the record, which is then rejected.
        self._fields = {name: (value, _encode(name) + b":" + _encode(value)) for name, value in fields.items()}
        self._key_fields = [str(place[0]) for place in contract.key_locations]
        names = tuple(dict.fromkeys([*self._key_fields, *fields]))
        attributes = {name: f"f{at}" for at, name in enumerate(names)}
        # Only the fields that the key needs are decoded.
        struct = msgspec.defstruct(
            "KeyFields",
            [(attribute, Any, msgspec.UNSET) for attribute in attributes.values()],
            rename={attribute: name for name, attribute in attributes.items()},
            gc=False,
        )
        self._decode = msgspec.json.Decoder(struct, float_hook=_as_it_is).decode
        # For each part of the key: a top-level field, its attribute, and the way from there to the value.
        self._key_places = [(name, attributes[name], rest) for name, *rest in cast(Any, contract.key_locations)]
        self._field_attributes = [(name, attributes[name]) for name in fields]

    def encode(self, chunk: JsonChunk) -> EncodedChunk:
        """Checks and encodes the chunk's documents."""
        fast = self._encode_columns(chunk.documents) if self._parser is not None else None
        return fast or self._encode_one_by_one(chunk)

    def _encode_columns(self, documents: list[bytes]) -> EncodedChunk | None:
        """Checks and encodes documents as columns; None if one is unusual, or if too many need a second look."""
        if any(rest for _, _, rest in self._key_places):
            return None
        found = read_columns(documents, self._contract.source_fields)
        if not found:
            return None
        columns = {name: pc.fill_null(column, "") if column.null_count else column for name, column in found.items()}
        constants = {name: value for name, (value, _) in self._fields.items() if name not in columns}
        data = documents
        if constants:
            # A field of the name that is null in a document, and a document without any field, look like absent ones.
            if any(quoted in document for document in documents for quoted in map(_encode, constants)):
                return None
            if all(column.null_count for column in found.values()):
                return None
            added = b"," + b",".join(self._fields[name][1] for name in constants) + b"}"
            data = [document[:-1] + added for document in documents]
        if any(found[name].null_count for name in self._fields if name in found):
            return None
        columns |= {name: pa.repeat(pa.scalar(value), len(documents)) for name, value in constants.items()}
        keys = pc.binary_join_element_wise(*(columns.get(name, "") for name in self._key_fields), "|")
        length = pc.utf8_length(keys)
        if pc.min(length).as_py() < 1 or pc.max(length).as_py() > MAX_KEY_CHARACTERS:
            return None
        names = tuple(columns)
        checks = self._column_checks.get(names)
        if checks is None:
            positions = {name: at for at, name in enumerate(names)}
            checks = self._column_checks[names] = TextColumnChecks(RecordChecks(self._contract), positions)
        suspects = checks.suspects(list(columns.values()))
        rows = [] if suspects is None else np.flatnonzero(suspects).tolist()
        largest = self._limit - 4 * MAX_KEY_CHARACTERS
        if max(map(len, data)) > largest:
            rows = sorted({*rows, *(row for row, one in enumerate(data) if len(one) > largest)})
        if len(rows) > len(documents) // 4:
            return None
        again = self._encode_one_by_one(JsonChunk(0, None, 0, [documents[row] for row in rows])) if rows else None
        overrides = {} if again is None else {row: again.record(at) for at, row in enumerate(rows)}
        return EncodedChunk(data, keys, overrides)

    def _encode_one_by_one(self, chunk: JsonChunk) -> EncodedChunk:
        """For documents that cannot form columns, or that the columns' checks cannot decide about."""
        data: list[Any] = list(chunk.documents)
        keys: list[Any] = [None] * len(data)
        overrides: dict[int, PutRecordsEntry | Rejection | None] = {}
        for index, document in enumerate(chunk.documents):
            rejection = self._read(document, index, data, keys) if document else None
            if rejection is not None or not document:
                overrides[index] = rejection
        if self._parser is not None:
            good = [index for index in range(len(data)) if index not in overrides] if overrides else range(len(data))
            parsed = self._parser.parse(pa.array([data[index] for index in good], pa.binary()))
            overrides |= {good[at]: rejection for at, rejection in parsed.rejections.items()}
        return EncodedChunk(data, keys, overrides)

    def _read(self, document: bytes, index: int, data: list[Any], keys: list[Any]) -> Rejection | None:
        """Adds the file's fields to the document, and sets its key. A Rejection if it cannot be sent."""
        if self._parser is None:
            # The parser would find what the decoder below skips.
            found = read_object(document, self._limit)
            if isinstance(found, Rejection):
                return found
        try:
            values = self._decode(document)
        except _UNREADABLE:
            found = read_object(document, self._limit)
            if isinstance(found, Rejection):
                return found
            raise
        missing = [name for name, attribute in self._field_attributes if getattr(values, attribute) is msgspec.UNSET]
        if missing:
            start = document[:-1].rstrip()
            comma = b"" if start == b"{" else b","
            data[index] = start + comma + b",".join(self._fields[name][1] for name in missing) + b"}"
        texts = []
        for name, attribute, rest in self._key_places:
            value = getattr(values, attribute)
            if value is msgspec.UNSET:
                value = self._fields[name][0] if name in self._fields else None
            value = value_at(value, rest)
            texts.append(value if type(value) is str else "" if is_absent(value) else as_text(value))
        keys[index] = key = partition_key(texts)
        if len(data[index]) + 4 * MAX_KEY_CHARACTERS > self._limit:
            record = check_size(self._limit, PutRecordsEntry(data[index], key))
            return record if isinstance(record, Rejection) else None
        return None


def _as_it_is(number: str) -> msgspec.Raw:
    """A number with a fraction keeps its text, also in the partition key."""
    return msgspec.Raw(number.encode("ascii"))
