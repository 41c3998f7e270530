"""The base class of every model that users fill in, and pydantic's error messages in plain words."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from jobs.common.uris import checked_folder

# A folder on S3 or on this machine, in the spelling that boto3, S3A and delta-rs agree on.
Folder = Annotated[str, AfterValidator(checked_folder)]


class StrictModel(BaseModel):
    """A section of a YAML file. Frozen; an unknown key is an error; no conversion between bool, int and str."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, serialize_by_alias=True)

    @classmethod
    def fields_by_key(cls) -> dict[str, FieldInfo]:
        """The fields by their YAML key, which is the alias of a field whose name pydantic itself uses.

        A field that is excluded from the file's content has no key.
        """
        return {field.alias or name: field for name, field in cls.model_fields.items() if not field.exclude}


def explain(
    error: ValidationError,
    model: type[StrictModel],
    origin: Callable[[str], str],
    renamed: Mapping[str, str] | None = None,
    shown: Callable[[tuple[int | str, ...]], tuple[int | str, ...]] = lambda location: location,
) -> str:
    """One line for each mistake: `<where it was set>: <key>: <what is wrong>; got <value>`.

    `origin` returns where a key was set: a file's name or `--set`. `renamed` maps keys of earlier releases to
    today's. `shown` returns how a mistake's location is written, such as ("columns", "city") for ("columns", 0).
    """
    lines = []
    for mistake in error.errors(include_url=False):
        key = ".".join(str(part) for part in shown(mistake["loc"]))
        lines.append(f"{origin(key)}: {key + ': ' if key else ''}{_sentence(mistake, key, model, renamed or {})}")
    return "\n".join(lines)


def _sentence(mistake: Any, key: str, model: type[StrictModel], renamed: Mapping[str, str]) -> str:
    location = mistake["loc"]
    if mistake["type"] == "extra_forbidden":
        if key in renamed:
            return f"renamed to {renamed[key]}"
        known = sorted(_keys_beside(model, location))
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        return f"unknown key; {hint}known here: {', '.join(known)}"
    if mistake["type"] == "missing":
        return "is missing"
    message = str(mistake["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if isinstance(mistake["input"], dict):  # a whole section, or the whole file
        return message
    shown = repr(mistake["input"])
    return f"{message}; got {shown if len(shown) <= 80 else shown[:77] + '...'}"


def _keys_beside(model: type[StrictModel], location: tuple[int | str, ...]) -> set[str]:
    """The keys that the model allows at the level of the last part of `location`."""
    current: type[StrictModel] | None = model
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        current = _model_in(current.fields_by_key()[part].annotation) if current else None
    return set(current.fields_by_key()) if current else set()


def _model_in(annotation: Any) -> type[StrictModel] | None:
    """The model that an annotation such as `tuple[Check, ...] | None` contains."""
    if isinstance(annotation, type) and issubclass(annotation, StrictModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def checked_positions(text: str) -> str:
    """Returns `text` if it is JSON with a position for each shard; the source checks the positions themselves."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"positions by shard are not readable as JSON: {error}") from error
    shards = content.get("shards", content)
    if not isinstance(shards, dict) or not shards or not all(isinstance(at, str) for at in shards.values()):
        raise ValueError('allowed: {"<shard>": "<last sequence number read, as text>", …}')
    return text
