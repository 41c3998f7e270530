"""Changes moto's EMR and EMR Serverless where they differ from AWS in ways that a deployment meets.

- EMR Serverless accepts the releases `emr-spark-…`. A job run is SUBMITTED at first and RUNNING once it was read. An
  application without job runs has an empty list of them.
- EMR's CancelSteps works: the step becomes CANCELLED.

Only the states change; nothing runs.
"""

from __future__ import annotations

import re
from typing import Any

from moto.core.responses import ActionResult
from moto.emr.responses import ElasticMapReduceResponse
from moto.emrserverless import models as serverless

_SPARK_LABEL = re.compile(r"emr-spark-\d+\.\d+\.\d+")


def apply() -> None:
    """Patches moto's classes in this process."""
    backend = serverless.EMRServerlessBackend
    backend.create_application = _spark_release(backend.create_application)
    backend.start_job_run = _submitted(backend.start_job_run)
    backend.get_job_run = _running_once_read(backend.get_job_run)
    backend.list_job_runs = _empty_list(backend.list_job_runs)
    ElasticMapReduceResponse.cancel_steps = _cancel_steps


def _spark_release(original: Any) -> Any:
    def create_application(self: Any, name: str, release_label: str, *others: Any, **named: Any) -> Any:
        if not _SPARK_LABEL.fullmatch(release_label):
            return original(self, name, release_label, *others, **named)
        application = original(self, name, "emr-7.1.0", *others, **named)  # a release that moto knows
        application.release_label = release_label
        return application

    return create_application


def _submitted(original: Any) -> Any:
    def start_job_run(self: Any, *others: Any, **named: Any) -> Any:
        run = original(self, *others, **named)
        run.state = "SUBMITTED"
        return run

    return start_job_run


def _running_once_read(original: Any) -> Any:
    def get_job_run(self: Any, *others: Any, **named: Any) -> Any:
        run = original(self, *others, **named)
        if run.state == "SUBMITTED":
            run.state = "RUNNING"
        return run

    return get_job_run


def _empty_list(original: Any) -> Any:
    def list_job_runs(self: Any, application_id: str, *others: Any, **named: Any) -> Any:
        if application_id in self.applications:
            self.job_runs.setdefault(application_id, [])
        return original(self, application_id, *others, **named)

    return list_job_runs


def _cancel_steps(self: Any) -> Any:
    answers = []
    for identity in self._get_param("StepIds"):
        step = self.backend.describe_step(self._get_param("ClusterId"), identity)
        active = step is not None and step.state in ("PENDING", "RUNNING")
        if active:
            step.state = "CANCELLED"
        answers.append({"StepId": identity, "Status": "SUBMITTED" if active else "FAILED"})
    return ActionResult({"CancelStepsInfoList": answers})
