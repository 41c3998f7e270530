"""The machine that an environment is built for: its Python, its processor and the path of its interpreter.

EMR `emr-spark-8.1.0` has Python 3.11 and 3.13, on x86_64 and Graviton (arm64); Glue 6.0 has Python 3.13 on x86_64.
Both are Amazon Linux 2023, glibc 2.34, with `python3.x` in /usr/bin. The wheels match exactly that, so any machine can
build the archive without compiling. Sources:
https://docs.aws.amazon.com/emr/latest/ReleaseGuide/emr-spark810-release.html
https://docs.aws.amazon.com/glue/latest/dg/aws-glue-programming-python-libraries.html (appendix B)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jobs.common.errors import ConfigurationError

PYTHONS = ("3.11", "3.12", "3.13")
# By a user's name of a processor: the name in wheels.
PROCESSORS = {"x86_64": "x86_64", "amd64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}
# manylinux versions up to Amazon Linux 2023's glibc, newest first.
_GLIBC = ("2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17")


@dataclass(frozen=True)
class Target:
    """Where an environment will run. `python` is such as 3.11, `processor` as in the names of wheels."""

    python: str
    processor: str
    interpreter: str

    @property
    def platforms(self) -> list[str]:
        """The platform tags of wheels that run there, best first."""
        return [*(f"manylinux_{glibc}_{self.processor}" for glibc in _GLIBC), f"manylinux2014_{self.processor}"]

    @property
    def markers(self) -> dict[str, str]:
        """The target's values for environment markers (PEP 508)."""
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
    """Checks a target's options. Raises ConfigurationError with the option, the value and the allowed ones."""
    if python not in PYTHONS:
        raise ConfigurationError(f"--python {python}: allowed: {', '.join(PYTHONS)}")
    if processor not in PROCESSORS:
        raise ConfigurationError(f"--platform {processor}: allowed: {', '.join(PROCESSORS)}")
    interpreter = interpreter or f"/usr/bin/python{python}"
    if not re.fullmatch(r"/[\w./-]+", interpreter):
        raise ConfigurationError(f"--interpreter {interpreter}: allowed: an absolute path on the platform's machines")
    return Target(python, PROCESSORS[processor], interpreter)
