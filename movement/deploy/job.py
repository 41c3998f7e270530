"""The streaming job as every platform runs it: one script, one list of arguments, one Python environment.

A configuration or contract that is the release's own is named (`emr.yaml`); any other is uploaded beside it under
its hash and named by its address. Overrides are one JSON object: Glue's arguments are a map, where `--set` stands
once.
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
from movement.deploy.upload import put, release_uri, uploads
from movement.packaging.release import Manifest, read_manifest

SCRIPT = "jobs/stream_job.py"


@dataclass(frozen=True)
class Job:
    """What to run. `uri`: the release's folder in S3; `arguments`: for the script."""

    settings: Settings
    manifest: Manifest
    uri: str
    region: str
    arguments: tuple[str, ...]
    uploads: tuple[Call, ...]

    @property
    def script(self) -> str:
        """The entry script's address."""
        return f"{self.uri}/{SCRIPT}"

    def artifact(self, name: str) -> str:
        """An artifact's address. Raises ConfigurationError where the release was built without it."""
        if name not in self.manifest.artifacts:
            raise ConfigurationError(f"release {self.manifest.release} has no {name}; build it with `movement package`")
        return f"{self.uri}/{name}"


def plan(folder: Path, config: str, overrides: list[str]) -> Job:
    """The job of a packaged release with these settings; reads and writes nothing outside this machine.

    Raises ConfigurationError naming the file or key, the value and the remedy.
    """
    settings = load_settings(config, overrides)
    load_contract(settings.contract)  # a wrong one is to fail here, not on the cluster
    if not settings.lake.startswith("s3://") or settings.lake == Settings().lake:
        raise ConfigurationError(f"lake: {settings.lake}: name a bucket of yours: --set lake=s3://bucket/prefix")
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
    return Job(settings, manifest, uri, str(region()), tuple(arguments), (*calls, *more, *files))


def _named(name: str, manifest: Manifest, uri: str) -> tuple[str, list[Call]]:
    """How the job is to name a configuration file, and what has to be uploaded for it."""
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
    """One argument. YARN takes two closing or opening braces in a row for a variable of its own."""
    text = json.dumps(passed, ensure_ascii=True)
    if "{{" in text or "}}" in text:
        raise ConfigurationError(f"--set: {text}: no two braces may stand together; put the setting into a file")
    return text
