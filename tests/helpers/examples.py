"""How many examples Hypothesis draws: EXAMPLES=0.1 draws a tenth of the usual number, EXAMPLES=20 twenty times."""

from __future__ import annotations

import os


def examples(usual: int) -> int:
    """The number of examples for a test that usually draws `usual`.

    `make fast` and `make nightly` set EXAMPLES.
    """
    return max(10, round(usual * float(os.environ.get("EXAMPLES", "1"))))
