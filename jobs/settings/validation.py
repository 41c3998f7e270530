"""pydantic's complaints in words that name the file, the key, the value and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel], origin: Callable[[str], str]) -> str:
    """One line for each complaint: `<where from>: <key>: <value> …`. `origin(key)` says where a key was set."""
    lines = []
    for complaint in error.errors(include_url=False):
        key = ".".join(str(part) for part in complaint["loc"])
        lines.append(f"{origin(key)}: {key + ': ' if key else ''}{_sentence(complaint, model)}")
    return "\n".join(lines)


def _sentence(complaint: Any, model: type[BaseModel]) -> str:
    location = complaint["loc"]
    if complaint["type"] == "extra_forbidden":
        known = sorted(_keys_beside(model, location))
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        return f"unknown key; {hint}known here: {', '.join(known)}"
    if complaint["type"] == "missing":
        return "is missing"
    message = complaint["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    shown = repr(complaint["input"])
    return f"{message}; got {shown if len(shown) <= 80 else shown[:77] + '...'}"


def _keys_beside(model: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    """The keys that the model allows at the level of the last part of `location`."""
    current: Any = model
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        current = _model_in(current.model_fields[part].annotation)
        if current is None:
            return set()
    return set(current.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model that an annotation such as `tuple[Check, ...] | None` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        found = _model_in(inner)
        if found is not None:
            return found
    return None
