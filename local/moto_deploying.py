"""What moto lacks, or has otherwise than AWS, of EMR, EMR Serverless and Glue where a job is brought out.

- EMR Serverless knows the releases `emr-spark-…`; a job run is SUBMITTED, and RUNNING from the first look on; an
  application without job runs has an empty list of them.
- EMR's CancelSteps and Glue's BatchStopJobRun: the step is CANCELLED, the run STOPPED.

Nothing runs: the states are all there is.
"""

from __future__ import annotations

import re
from typing import Any

from moto.core.responses import ActionResult
from moto.emr.responses import ElasticMapReduceResponse
from moto.emrserverless import models as serverless
from moto.glue.responses import GlueResponse

_SPARK_RELEASE = re.compile(r"emr-spark-\d+\.\d+\.\d+")


def apply() -> None:
    """Changes moto's classes in this process."""
    backend = serverless.EMRServerlessBackend
    backend.create_application = _any_release(backend.create_application)
    backend.start_job_run = _submitted(backend.start_job_run)
    backend.get_job_run = _going(backend.get_job_run)
    backend.list_job_runs = _none_yet(backend.list_job_runs)
    ElasticMapReduceResponse.cancel_steps = _cancel_steps
    GlueResponse.batch_stop_job_run = _batch_stop_job_run


def _any_release(original: Any) -> Any:
    def create_application(self: Any, name: str, release_label: str, *others: Any, **named: Any) -> Any:
        if not _SPARK_RELEASE.fullmatch(release_label):
            return original(self, name, release_label, *others, **named)
        application = original(self, name, "emr-7.1.0", *others, **named)  # one that moto knows
        application.release_label = release_label
        return application

    return create_application


def _submitted(original: Any) -> Any:
    def start_job_run(self: Any, *others: Any, **named: Any) -> Any:
        run = original(self, *others, **named)
        run.state = "SUBMITTED"
        return run

    return start_job_run


def _going(original: Any) -> Any:
    def get_job_run(self: Any, *others: Any, **named: Any) -> Any:
        run = original(self, *others, **named)
        if run.state == "SUBMITTED":
            run.state = "RUNNING"
        return run

    return get_job_run


def _none_yet(original: Any) -> Any:
    def list_job_runs(self: Any, application_id: str, *others: Any, **named: Any) -> Any:
        if application_id in self.applications:
            self.job_runs.setdefault(application_id, [])
        return original(self, application_id, *others, **named)

    return list_job_runs


def _cancel_steps(self: Any) -> Any:
    answers = []
    for identity in self._get_param("StepIds"):
        step = self.backend.describe_step(self._get_param("ClusterId"), identity)
        going = step is not None and step.state in ("PENDING", "RUNNING")
        if going:
            step.state = "CANCELLED"
        answers.append({"StepId": identity, "Status": "SUBMITTED" if going else "FAILED"})
    return ActionResult({"CancelStepsInfoList": answers})


def _batch_stop_job_run(self: Any) -> Any:
    name = self._get_param("JobName")
    stopped = []
    for identity in self._get_param("JobRunIds"):
        run = self.glue_backend.get_job_run(name, identity)
        run.status = "STOPPED"
        stopped.append({"JobName": name, "JobRunId": identity})
    return ActionResult({"SuccessfulSubmissions": stopped, "Errors": []})
