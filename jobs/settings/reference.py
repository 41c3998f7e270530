"""Writes `conf/reference.yaml` from the settings' own classes: every key, its default, its meaning.

`python -m jobs.settings.reference` prints it; a test holds the file in `conf/` equal to it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import yaml
from pydantic import BaseModel

from jobs.settings.settings import Settings

_HEADER = """\
# Every setting, its default and its meaning. Made by `python -m jobs.settings.reference`; do not edit.
#
# A file of your own holds only what differs: `movement stream --config my.yaml --set sink.target_file_bytes=67108864`.
# AWS itself (region, credentials, endpoints) is not set here but in the standard way: AWS_REGION, AWS_PROFILE,
# AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_KINESIS / _S3 / _GLUE …
"""


def reference() -> str:
    """The reference as YAML text; loading it gives the default settings."""
    return _HEADER + "\n" + "\n".join(_lines(Settings(), indent=0)) + "\n"


def _lines(model: BaseModel, indent: int) -> Iterator[str]:
    pad = "  " * indent
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield f"{pad}{name}:"
            yield from _lines(value, indent + 1)
            continue
        yield from textwrap.wrap(
            field.description or "", width=110, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# "
        )
        yield pad + yaml.safe_dump({name: value}, default_flow_style=True, allow_unicode=True, width=1000).strip()[1:-1]


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201
