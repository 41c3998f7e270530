"""Arithmetic over columns, such as `(upper - lower) / mean`: a closed grammar, parsed and never executed as code.

An expression has column names, numbers, `+ - * /` and parentheses. Python's own parser reads the text; every other
kind of node is refused. The caller brings the operators, so Spark and a test evaluate the same text.
Source: https://docs.python.org/3/library/ast.html.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LONGEST = 1000  # characters; deeper nesting than any formula has would end Python's parser
_OPERATORS: Mapping[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_ALLOWED = "allowed: column names, numbers, + - * / and parentheses"


def is_column(text: str) -> bool:
    """Whether the text is one column's name, not an expression over columns."""
    return _NAME.fullmatch(text) is not None


def columns_of(text: str) -> tuple[str, ...]:
    """The columns that an expression names, each once. Raises ValueError if it is not in the grammar."""
    if is_column(text):
        return (text,)
    found: list[str] = []

    def note(name: str) -> None:
        found.append(name)

    evaluate(text, note, lambda _: None, dict.fromkeys(_OPERATORS.values(), lambda *_: None))
    if not found:
        raise ValueError(f"{text!r} names no column; {_ALLOWED}")
    return tuple(dict.fromkeys(found))


def evaluate(
    text: str,
    column: Callable[[str], Any],
    number: Callable[[float], Any],
    operators: Mapping[str, Callable[[Any, Any], Any]],
) -> Any:
    """The value of an expression.

    column     the value of a column, by its name
    number     the value of a number
    operators  what `+`, `-`, `*` and `/` do with two values

    Raises ValueError if the text is not in the grammar.
    """
    if is_column(text):
        return column(text)

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return operators[_OPERATORS[type(node.op)]](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return operators["-"](number(0.0), value(node.operand))
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return number(float(node.value))  # type: ignore[arg-type]
        if isinstance(node, ast.Name) and is_column(node.id):
            return column(node.id)
        raise ValueError(f"{text!r}: {ast.unparse(node)!r} is not part of an expression; {_ALLOWED}")

    try:
        if len(text) > _LONGEST:
            raise ValueError(f"an expression has at most {_LONGEST:,} characters")
        return value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(f"{text!r} cannot be read as an expression; {_ALLOWED}") from error
