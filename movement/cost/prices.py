"""The price file: amounts of AWS's price list, each with its unit and page. prices.yaml ships in the package."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from jobs.common.errors import ConfigurationError
from jobs.settings.config_files import read_yaml
from jobs.settings.validation import StrictModel, explain

SHIPPED = Path(__file__).with_name("prices.yaml")


class Price(StrictModel):
    """Dollars for one unit. `read`: whether the amount was read in AWS's own text."""

    amount: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    unit: str
    page: Annotated[str, Field(pattern=r"^https://")]
    read: bool = False


class Prices(StrictModel):
    """Every price that the estimate uses. A file without one of them, or with another name, is refused."""

    kinesis_stream_hour: Price
    kinesis_in: Price
    kinesis_out: Price
    kinesis_kept: Price
    kinesis_shard_hour: Price
    kinesis_put: Price
    kinesis_shard_kept: Price
    glue_dpu_hour: Price
    emr_serverless_vcpu_hour: Price
    emr_serverless_gb_hour: Price
    ec2_node_hour: Price
    emr_node_hour: Price
    ebs: Price
    endpoint_hour: Price
    endpoint_gb: Price
    s3_put: Price
    s3_get: Price
    s3_storage: Price
    cloudwatch_metric: Price
    cloudwatch_call: Price
    cloudwatch_alarm: Price
    cloudwatch_dashboard: Price
    kms_key: Price
    firehose_in: Price
    firehose_convert: Price
    firehose_partition: Price
    firehose_object: Price
    flink_kpu_hour: Price
    flink_storage: Price


class PriceList(StrictModel):
    """A price file: the prices of one region on one day."""

    as_of: date
    region: str
    prices: Prices

    @property
    def unread(self) -> int:
        """Number of prices that nobody has read in AWS's own text."""
        return sum(1 for name in Prices.model_fields if not getattr(self.prices, name).read)


def load_prices(file: Path | None = None) -> PriceList:
    """Reads a price file; None: the one in the package.

    Raises ConfigurationError with one line for each mistake: the file, the price, what is wrong.
    """
    file = file or SHIPPED
    try:
        return PriceList.model_validate(read_yaml(file))
    except ValidationError as error:
        raise ConfigurationError(explain(error, PriceList, lambda _key: str(file))) from error
