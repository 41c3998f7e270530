"""The permissions that `movement doctor` asks IAM about are those of access.yaml, which are the recorded calls."""

from __future__ import annotations

from movement.doctor import roles
from tests.helpers.role_permissions import rendered
from tests.infra.test_least_privilege import POLICIES


def test_doctor_asks_about_exactly_what_the_access_stack_grants() -> None:
    assert roles._DATA.read_text(encoding="utf-8") == rendered(POLICIES), (
        "python -m tests.helpers.role_permissions > movement/doctor/role_permissions.yaml"
    )
