"""The price file: complete, dated, replaceable; a mistake in a user's file is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.common.errors import ConfigurationError
from movement.cost.prices import SHIPPED, Prices, load_prices


def test_every_price_names_its_unit_and_a_page_of_aws() -> None:
    prices = load_prices().prices
    for name in Prices.model_fields:
        price = getattr(prices, name)
        assert price.unit
        assert price.page.startswith("https://aws.amazon.com/")
        assert price.page.endswith(("/pricing/", "/pricing/on-demand/"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("amount: 0.44", "amount: -1", "prices.glue_dpu_hour.amount"),
        ("amount: 0.44", 'amount: "0.44"', "prices.glue_dpu_hour.amount"),
        ("  kms_key:", "  kms_keys:", "did you mean 'kms_key'"),
        ("as_of: 2026-11-28", "as_of: yesterday", "as_of"),
        ("region: us-east-1\n", "", "region: is missing"),
    ],
)
def test_a_mistake_in_a_users_price_file_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    assert old in text
    file = tmp_path / "prices.yaml"
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigurationError) as error:
        load_prices(file)
    assert message in str(error.value)
    assert str(file) in str(error.value)
