"""Virtual services behave in our sidecar and in real Envoy as Istio's reference says: one table for both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.controlplane.pilot.behaviour import cases, check, services
from tests.controlplane.pilot.planes import PLANES, Plane, running
from tests.controlplane.pilot.scene import Scene, sidecar

ALL = [case for topic in ("matching", "destinations", "changes", "policies") for case in cases(topic)]
SILENT = "outbound|80||silent.shop.svc.cluster.local"


@pytest.fixture(scope="module", params=PLANES)
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """A proxy that runs what is generated from all cases, with servers behind it."""
    scene = Scene(services(), *(case.resources for case in ALL))
    client = sidecar(LABELS={"app": "client"})
    with running(request.param, scene, client, tmp_path_factory.mktemp(request.param), silent=SILENT) as made:
        yield made


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_requests_are_answered_as_the_table_says(case, plane: Plane) -> None:  # type: ignore[no-untyped-def]
    for request in case.requests:
        check(plane.ports["127.0.0.1_15002"], f"{case.name}.test", request, plane.servers)
