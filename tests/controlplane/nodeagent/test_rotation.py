"""Certificates of a few seconds under requests: nobody notices that they change."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controlplane.nodeagent.node import Node, node
from tests.controlplane.nodeagent.test_proxies import both, status
from tests.running import until

LIFETIME = 6.0


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node(tmp_path_factory.mktemp("node")) as made:
        for account in ("page", "reviews"):
            made.join(account, lifetime=LIFETIME)
        yield made


@pytest.mark.parametrize("kinds", [("envoy", "sidecar"), ("sidecar", "envoy")], ids="-".join)
def test_no_request_fails(one: Node, kinds: tuple[str, str], tmp_path: Path) -> None:
    with one.agent() as agent, both(one, kinds, tmp_path) as (port, _):
        until(lambda: status(port) == 200, "they have their certificates")
        before = {
            name: agent.metric("mizzen_agent_renewals_total", workload=f"shop/{name}") for name in ("page", "reviews")
        }
        found: list[int] = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found.append(status(port))
            if len(found) % 50 == 0 and all(
                agent.metric("mizzen_agent_renewals_total", workload=f"shop/{name}") >= count + 5
                for name, count in before.items()
            ):
                break
        else:
            raise AssertionError(f"not renewed five times: {agent.output}")
        assert set(found) == {200} and len(found) > 100
        for name in before:
            assert agent.metric("mizzen_agent_sds_acks_total", workload=f"shop/{name}") >= 6
            assert agent.metric("mizzen_agent_sds_nacks_total", workload=f"shop/{name}") == 0


def test_py_spiffe_follows(one: Node) -> None:
    spiffe = pytest.importorskip("spiffe", reason="py-spiffe is not installed")
    with one.agent(), spiffe.X509Source(socket_path=f"unix://{one.socket('page')}") as source:
        serials = set()
        changed = threading.Event()
        source.subscribe_for_updates(changed.set)
        for _ in range(3):
            serials.add(source.get_x509_context().default_svid.leaf.serial_number)
            assert changed.wait(20), "no other certificate came"
            changed.clear()
        assert len(serials) == 3
        remaining = source.get_x509_context().default_svid.leaf.not_valid_after_utc.timestamp() - time.time()
        assert 0 < remaining <= LIFETIME + 1


def test_files_on_disk_follow(one: Node) -> None:
    """For whoever reads them, and for the agent after a reboot."""
    path = one.identities / "shop" / "page" / "secret.json"
    with one.agent() as agent:
        before = path.read_bytes()
        until(lambda: path.read_bytes() != before, "it is written", timeout=20)
        agent.process.send(signal.SIGTERM)
        agent.process.end()
    pair = json.loads(path.read_bytes())["resources"][0]["tls_certificate"]
    directory = path.parent
    assert pair["private_key"]["inline_string"] == (directory / "key.pem").read_text()
    assert {file.stat().st_mode & 0o777 for file in directory.iterdir()} == {0o600}
