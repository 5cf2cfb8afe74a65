"""Random policies, random callers: real Envoy, our sidecar and a plain model of the documentation are of one opinion."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.controlplane.pilot.planes import PLANES
from tests.controlplane.pilot.security.enforcing import at, enforcing, some_workloads
from tests.controlplane.pilot.security.policy_model import verdict
from tests.controlplane.pilot.security.random_policies import facts, policy

WORKLOADS = 25
CALLS = 25


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", PLANES)
def test_who_may_call_what(kind: str, seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    tables = {
        workload: [policy(chance, tokens=False, ports=workload[1:]) for _ in range(chance.choice((1, 1, 2, 3)))]
        for workload in some_workloads(WORKLOADS)
    }
    aliases = {"trustDomainAliases": ["old.example"]} if seed else {}
    domains = ("cluster.local", *aliases.get("trustDomainAliases", ()))
    met = {True: 0, False: 0}
    with enforcing(kind, tables, tmp_path, mesh=aliases) as proxy:
        for workload, table in tables.items():
            named = [{**each, "namespace": workload.namespace} for each in table]
            for _ in range(CALLS):
                call = at(workload, facts(chance, tokens=False))
                wanted = verdict(named, call, domains)
                met[wanted] += 1
                found = proxy.ask(workload, call)
                assert found == ((200 if wanted else 403) if call.http else wanted), (named, call)
    assert min(met.values()) > 120, met
