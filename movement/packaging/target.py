"""The machine that an environment is built for: its Python, its processor, where its interpreter lies.

EMR `emr-spark-8.1.0` has Python 3.11 and 3.13, on x86_64 and Graviton (arm64); Glue 6.0 has Python 3.13 on x86_64.
Both are Amazon Linux 2023, glibc 2.34, with `python3.x` in /usr/bin. Wheels are taken for exactly that, so any
machine can build the archive, and nothing is compiled. Sources:
https://docs.aws.amazon.com/emr/latest/ReleaseGuide/emr-spark810-release.html
https://docs.aws.amazon.com/glue/latest/dg/aws-glue-programming-python-libraries.html (appendix B)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobs.common.errors import ConfigurationError

PYTHONS = ("3.11", "3.12", "3.13")
# What users call a processor → what wheels call it.
PROCESSORS = {"x86_64": "x86_64", "amd64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}
# manylinux versions up to Amazon Linux 2023's glibc, newest first.
_GLIBC = ("2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17")


@dataclass(frozen=True)
class Target:
    """Where an environment is to run. `python` is `3.x`, `processor` a wheel's name of it."""

    python: str
    processor: str
    interpreter: str

    @property
    def platforms(self) -> list[str]:
        """The wheels' platform tags that run there, best first."""
        return [*(f"manylinux_{glibc}_{self.processor}" for glibc in _GLIBC), f"manylinux2014_{self.processor}"]

    @property
    def markers(self) -> dict[str, str]:
        """What environment markers (PEP 508) are evaluated with: the target's values, not this machine's."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.processor,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
            "extra": "",
        }


def target(python: str, processor: str, interpreter: str | None = None) -> Target:
    """A target, checked. Raises ConfigurationError naming the option, the value and what is allowed."""
    if python not in PYTHONS:
        raise ConfigurationError(f"--python {python}: allowed: {', '.join(PYTHONS)}")
    if processor not in PROCESSORS:
        raise ConfigurationError(f"--platform {processor}: allowed: {', '.join(PROCESSORS)}")
    interpreter = interpreter or f"/usr/bin/python{python}"
    if not re.fullmatch(r"/[\w./-]+", interpreter):
        raise ConfigurationError(f"--interpreter {interpreter}: allowed: an absolute path on the platform's machines")
    return Target(python, PROCESSORS[processor], interpreter)
