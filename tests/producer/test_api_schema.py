"""schemathesis: what /openapi.json says about the API is true. It makes valid and invalid requests from it."""

from __future__ import annotations

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case, Config, GenerationMode

from jobs.settings.settings import load_settings
from producer.api import create_app
from producer.api_access import API_KEY_VARIABLE
from tests.helpers.faulty_kinesis import FaultyKinesis
from tests.helpers.serving import serving

pytestmark = pytest.mark.aws

MAX_EXAMPLES = max(5, round(5 * float(os.environ.get("EXAMPLES", "1"))))
CHECKS = {
    # A schema cannot say that February has no 30th day, or that the lower bound is at most the mean.
    "positive_data_acceptance": {"enabled": False},
    # 413 is the answer to more than maxItems.
    "negative_data_rejection": {"expected-statuses": ["400", "401", "405", "413", "415", "422"]},
}


def test_every_answer_is_one_that_the_documentation_promises(aws_environment: pytest.MonkeyPatch) -> None:
    aws_environment.delenv(API_KEY_VARIABLE, raising=False)
    with FaultyKinesis() as kinesis:
        aws_environment.setenv("AWS_ENDPOINT_URL_KINESIS", kinesis.url)
        app = create_app(load_settings(None, ["stream.name=stream", "api.max_pending_records=5"]))
        with serving(app) as address:
            schema = schemathesis.openapi.from_url(
                f"{address}/openapi.json", config=Config.from_dict({"checks": CHECKS})
            )
            asked = set()
            # /travel_times has the same documentation and the same handler as /records.
            for operation in (schema["/records"]["POST"], schema["/healthz"]["GET"], schema["/metrics"]["GET"]):
                for mode in GenerationMode if operation.body else [GenerationMode.POSITIVE]:

                    @seed(1)
                    @settings(
                        max_examples=MAX_EXAMPLES if operation.body else 1,
                        deadline=None,
                        database=None,
                        phases=[Phase.generate],
                        suppress_health_check=list(HealthCheck),
                    )
                    @given(case=operation.as_strategy(generation_mode=mode))
                    def is_true(case: Case) -> None:
                        answer = case.call_and_validate()
                        asked.add((case.method, case.operation.path, answer.status_code))

                    is_true()
    assert ("GET", "/metrics", 200) in asked
    assert {status for _, path, status in asked if path == "/records"} & {413, 422}
