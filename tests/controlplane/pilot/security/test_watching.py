"""Dry runs and AUDIT: nobody is refused, and it is counted and said what would have been."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.controlplane.pilot.planes import PLANES
from tests.controlplane.pilot.security.enforcing import Enforcing, Workload, enforcing, some_workloads
from tests.controlplane.pilot.security.policy_model import Facts
from tests.running import until

ADMIN = {"to": [{"operation": {"paths": ["/admin*"]}}]}
PUT = {"to": [{"operation": {"methods": ["PUT"]}}]}
TABLES: list[list[dict[str, Any]]] = [
    [{"action": "DENY", "rules": [ADMIN], "dryRun": True}],
    [{"action": "ALLOW", "rules": [ADMIN], "dryRun": True}],
    [{"action": "DENY", "rules": [ADMIN], "dryRun": True}, {"action": "DENY", "rules": [PUT]}],
    [{"action": "AUDIT", "rules": [ADMIN]}],
]
LOG = {
    "apiVersion": "telemetry.istio.io/v1",
    "kind": "Telemetry",
    "metadata": {"name": "log", "namespace": "istio-system"},
    "spec": {"accessLogging": [{"providers": [{"name": "said"}]}]},
}
SAID = {
    "denied": "%DYNAMIC_METADATA(envoy.filters.http.rbac:istio_dry_run_deny_shadow_effective_policy_id)%",
    "deny": "%DYNAMIC_METADATA(envoy.filters.http.rbac:istio_dry_run_deny_shadow_engine_result)%",
    "allow": "%DYNAMIC_METADATA(envoy.filters.http.rbac:istio_dry_run_allow_shadow_engine_result)%",
    "audit": "%DYNAMIC_METADATA(envoy.common:access_log_hint)%",
    "path": "%REQ(:PATH)%",
}


class Setting(NamedTuple):
    proxy: Enforcing
    workloads: list[Workload]

    def status(self, number: int, path: str, method: str = "GET") -> int:
        facts = Facts(host="own.example", path=path, method=method)
        return self.proxy.answer(self.workloads[number], facts)[0]

    def counted(self, number: int) -> dict[str, int]:
        prefix = f"http.inbound_0.0.0.0_{self.workloads[number].http}.rbac."
        lines = self.proxy.proxy.admin("/stats")[2].splitlines()
        found = (line.removeprefix(prefix).split(": ") for line in lines if line.startswith(prefix))
        return {name: int(value) for name, value in found if value.isdigit() and int(value)}


@pytest.fixture(scope="module", params=PLANES)
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    workloads = some_workloads(len(TABLES))
    directory = tmp_path_factory.mktemp(request.param)
    log = {"path": str(directory / "access.log"), "logFormat": {"labels": SAID}}
    mesh = {"extensionProviders": [{"name": "said", "envoyFileAccessLog": log}]}
    tables = dict(zip(workloads, TABLES, strict=True))
    with enforcing(request.param, tables, directory, mesh=mesh, more=json.dumps(LOG)) as proxy:
        yield Setting(proxy, workloads)


def said(setting: Setting, path: str) -> dict[str, Any]:
    """What the access log says of a request, without what it does not know."""
    file = setting.proxy.proxy.directory / "access.log"
    until(lambda: file.exists() and path in file.read_text(), "the request is in the log")
    (found,) = (json.loads(line) for line in file.read_text().splitlines() if path in line)
    return {name: value for name, value in found.items() if value is not None and name != "path"}


def test_a_dry_run_that_would_deny(setting: Setting) -> None:
    assert setting.status(0, "/admin/first") == 200
    assert setting.status(0, "/info/first") == 200
    assert setting.counted(0) == {"istio_dry_run_deny_.shadow_denied": 1, "istio_dry_run_deny_.shadow_allowed": 1}
    assert said(setting, "/admin/first") == {"denied": "ns[case-0]-policy[p0]-rule[0]", "deny": "denied"}
    assert said(setting, "/info/first") == {"deny": "allowed"}


def test_a_dry_run_that_would_allow(setting: Setting) -> None:
    assert setting.status(1, "/admin/second") == 200
    assert setting.status(1, "/info/second") == 200
    assert setting.counted(1) == {"istio_dry_run_allow_.shadow_denied": 1, "istio_dry_run_allow_.shadow_allowed": 1}
    assert said(setting, "/info/second") == {"allow": "denied"}


def test_a_dry_run_beside_what_is_enforced(setting: Setting) -> None:
    assert setting.status(2, "/admin/third") == 200
    assert setting.status(2, "/other/third", "PUT") == 403
    assert setting.counted(2) == {
        "istio_dry_run_deny_.shadow_denied": 1,
        "istio_dry_run_deny_.shadow_allowed": 1,
        "allowed": 1,
        "denied": 1,
    }


def test_an_audit_marks_what_is_to_be_logged(setting: Setting) -> None:
    assert setting.status(3, "/admin/fourth") == 200
    assert setting.status(3, "/info/fourth") == 200
    assert said(setting, "/admin/fourth") == {"audit": True}
    assert said(setting, "/info/fourth") == {"audit": False}
