"""Arithmetic over columns: a closed grammar that is never executed."""

from __future__ import annotations

import operator

import pytest

from jobs.schema.expressions import columns_of, evaluate

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
ROW = {"upper": 866.0, "lower": 229.0, "mean": 446.0}


@pytest.mark.parametrize(
    ("text", "columns", "value"),
    [
        ("mean", ("mean",), 446.0),
        ("(upper - lower) / mean", ("upper", "lower", "mean"), (866 - 229) / 446),
        ("upper - lower / mean", ("upper", "lower", "mean"), 866 - 229 / 446),
        (" -mean * 2 + 1.5", ("mean",), -890.5),
        ("mean + mean", ("mean",), 892.0),
        ("(upper\n  - lower)", ("upper", "lower"), 637.0),
    ],
)
def test_the_usual_precedence_and_the_columns_in_their_order(text: str, columns: tuple[str, ...], value: float) -> None:
    assert columns_of(text) == columns
    assert evaluate(text, ROW.__getitem__, float, OPERATORS) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "1 + 2", "mean ** 2", "mean // 2", "mean % 2", "mean.real", "abs(mean)", "__import__('os')", "[mean]",
        "mean if mean else 1", "mean < 1", "'mean'", "mean; mean", "mean +", "Mean + 1", "True + mean", "1j * mean",
        "(lambda: mean)()", "mean" + " + mean" * 200, "(" * 300 + "mean" + ")" * 300, "mean\0 + 1", "1" * 999 + "*mean",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"allowed|at most|null byte"):
        columns_of(text)
