"""The streaming job as every platform runs it: one script, one list of arguments, one Python environment.

A configuration or contract of the release is passed by its name (`emr.yaml`); any other is uploaded to the release's
folder under its hash and passed by its address. Overrides are passed as one JSON object, because Glue's arguments are
a map and `--set` can be in it only once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from jobs.common.aws import region
from jobs.common.errors import ConfigurationError
from jobs.schema.table import load_contract
from jobs.settings.config_files import find_configuration
from jobs.settings.settings import Settings, each_override, load_settings
from movement.deploy.calls import Call
from movement.deploy.upload import address, put, release_uri, uploads
from movement.packaging.release import Manifest, read_manifest

SCRIPT = "jobs/stream_job.py"


@dataclass(frozen=True)
class Job:
    """The job of a release. `uri`: the release's folder in S3.

    arguments   of the script, in every run
    for_start   further arguments of the run that is started now, such as --start-from
    entry       the script, by its name in the release
    """

    settings: Settings
    manifest: Manifest
    uri: str
    region: str
    arguments: tuple[str, ...]
    uploads: tuple[Call, ...]
    for_start: tuple[str, ...] = ()
    entry: str = SCRIPT

    @property
    def script(self) -> str:
        """The address of the entry script."""
        return f"{self.uri}/{self.entry}"

    @property
    def files(self) -> list[str]:
        """The addresses of the files that the job's role must be able to read."""
        sent = [address(call) for call in self.uploads]
        named = [name for name in (self.arguments[1], self.settings.contract) if name.startswith("s3://")]
        return list(dict.fromkeys([*sent, *named]))

    def artifact(self, name: str) -> str:
        """An artifact's address. Raises ConfigurationError if the release was built without it."""
        if name not in self.manifest.artifacts:
            raise ConfigurationError(f"release {self.manifest.release} has no {name}; build it with `movement package`")
        return f"{self.uri}/{name}"

    def processor(self, environment: str) -> str:
        """The processor that an environment is for. Raises ConfigurationError if the release was built without it."""
        self.artifact(environment)
        return self.manifest.environments[environment].processor


def plan(folder: Path, config: str, overrides: list[str], start_from: str | None = None) -> Job:
    """The job of a packaged release with these settings. Sends no request.

    `start_from`: the job's option --start-from, for the run that is started now.

    Raises ConfigurationError with the file or key, the value and the remedy.
    """
    settings = load_settings(config, overrides)
    load_contract(settings.contract)  # a wrong one fails here, not on the cluster
    if not settings.lake.startswith("s3://") or settings.lake == Settings().lake:
        raise ConfigurationError(f"lake: {settings.lake}: not a bucket of yours; --set lake=s3://bucket/prefix")
    if region() is None:
        raise ConfigurationError("no AWS region: set AWS_REGION, or a region in the AWS profile")
    manifest = read_manifest(folder)
    uri = release_uri(settings.deploy.artifacts, manifest.release)
    named, calls = _named(config, manifest, uri)
    passed = {key: value for key, _, value in (each.partition("=") for each in each_override(overrides))}
    contract_named, more = _named(settings.contract, manifest, uri)
    if contract_named != settings.contract:
        passed["contract"] = contract_named
    arguments = ["--config", named]
    passed = {key: value for key, value in passed.items() if not key.strip().startswith("deploy.")}
    if passed:
        arguments += ["--set", _json(passed)]
    arguments += ["--region", str(region())]
    files = uploads(folder, manifest, uri)
    for_start = ("--start-from", start_from) if start_from else ()
    return Job(settings, manifest, uri, str(region()), tuple(arguments), (*calls, *more, *files), for_start)


def running_job(config: str, overrides: list[str]) -> Job:
    """The job by its settings alone, to find and stop a run of any release. Raises ConfigurationError."""
    if region() is None:
        raise ConfigurationError("no AWS region: set AWS_REGION, or a region in the AWS profile")
    no_release = Manifest("", "", "", 0, {}, {})
    return Job(load_settings(config, overrides), no_release, "", str(region()), (), ())


def job_role(job: Job) -> str:
    """The ARN of the job's role on EMR Serverless and Glue. Raises ConfigurationError if it is not set."""
    role = job.settings.deploy.role_arn
    if role is None:
        raise ConfigurationError("deploy.role_arn: not set; the job runs as this role: --set deploy.role_arn=arn:…")
    return role


def _named(name: str, manifest: Manifest, uri: str) -> tuple[str, list[Call]]:
    """The name by which the job finds a configuration file, and the uploads that this needs."""
    if name.startswith("s3://"):
        return name, []
    file = find_configuration(name)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    shipped = manifest.artifacts.get(f"conf/{file.name}")
    if shipped is not None and shipped.sha256 == digest:
        return file.name, []
    address = f"{uri}/conf/{file.stem}-{digest[:8]}{file.suffix}"
    return address, [put(file, address)]


def _json(passed: dict[str, str]) -> str:
    """The overrides as one argument. YARN would replace `{{…}}` as one of its own variables."""
    text = json.dumps(passed, ensure_ascii=True)
    if "{{" in text or "}}" in text:
        raise ConfigurationError(f"--set: {text}: '{{{{' and '}}}}' are not allowed; put the setting into a file")
    return text
