"""A workload whose certificate is revoked: the control plane refuses it at once, proxies as soon as they have the list."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from controlplane.nodeagent.control_plane import ControlPlane, ControlPlaneError
from controlplane.nodeagent.workload import read_identity
from tests.controlplane.nodeagent.node import Node, node
from tests.controlplane.nodeagent.test_proxies import both, need, status
from tests.differential.proxies import start
from tests.running import free_ports, until

REVOKED = "/mizzen/v1/certificates/revoked"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node(tmp_path_factory.mktemp("node")) as made:
        for account in ("page", "reviews", "thief", "away"):
            made.join(account, lifetime=3600)
        yield made


def serial(one: Node, account: str) -> str:
    return read_identity(one.identities / "shop" / account).svid.serial


@pytest.mark.parametrize("kinds", [("envoy", "sidecar"), ("sidecar", "envoy")], ids="-".join)
def test_proxies_refuse_it_within_seconds_also_after_the_root_was_replaced(
    one: Node, kinds: tuple[str, str], tmp_path: Path
) -> None:
    api = one.mesh.api
    with one.agent() as agent, both(one, kinds, tmp_path) as (port, _):
        until(lambda: status(port) == 200, "they know one another")
        held = {"serial": serial(one, "page"), "reason": "certificateHold"}
        api.request("POST", REVOKED, held)
        begun = time.monotonic()
        until(lambda: status(port) == 503, "the server refuses the client's handshake", timeout=10)
        took = time.monotonic() - begun
        assert took < 5.0, took
        api.request("POST", REVOKED + "/restore", {"serial": held["serial"]})
        # Its agent was refused meanwhile, and asks again after a pause; the server's has not been.
        until(lambda: status(port) == 200, "it is believed again", timeout=30)
        # Somebody else is revoked, so that there are lists while a new root comes: nobody notices.
        api.request("POST", REVOKED, {"serial": serial(one, "away")})
        api.request("POST", "/mizzen/v1/authority/rotation", {})
        found = []

        def signs() -> bool:
            found.append(status(port))
            rotation = api.request("GET", "/mizzen/v1/authority")["rotation"]
            waiting = {one["identity"].rpartition("/")[2] for one in rotation["waitingFor"]}
            if rotation["gate"] == 1 and waiting <= {"thief", "away"}:  # nobody is there for those
                api.request("POST", "/mizzen/v1/authority/rotation/advance", {"gate": 1})
            return bool(rotation["gate"] > 1 and not waiting & {"page", "reviews"})

        until(signs, "both have certificates of the new root", timeout=40)
        found += [status(port) for _ in range(20)]
        assert set(found) == {200}
        bundle = api.request("GET", "/mizzen/v1/trust-bundle")
        assert bundle["crl"].count("BEGIN X509 CRL") == bundle["roots"].count("BEGIN CERTIFICATE") == 2
        until(lambda: serial(one, "page") != held["serial"], "it is written down")
        api.request("POST", REVOKED, {"serial": serial(one, "page"), "reason": "keyCompromise"})
        until(lambda: status(port) == 503, "a certificate of the new root is refused, too", timeout=10)
        api.request("POST", "/mizzen/v1/authority/rotation/advance", {"gate": 2})
        assert agent.metric("mizzen_agent_sds_nacks_total", workload="shop/page") == 0
    (one.identities / "shop" / "page").rename(tmp_path / "page")
    one.join("page", lifetime=3600)


async def _refusals(one: Node, account: str) -> list[str]:
    identity = read_identity(one.identities / "shop" / account)
    control_plane = ControlPlane(identity.renewing.server)
    control_plane.show(identity.svid, identity.bundle)
    found = []
    for ask in (
        control_plane.renew(identity.svid.spiffe_id, None),
        control_plane.trust_bundle("cluster.local"),
        control_plane.jwt_svid(["reports"]),
    ):
        with pytest.raises(ControlPlaneError) as caught:
            await ask
        assert caught.value.status == 401
        found.append(str(caught.value))
    await control_plane.close()
    return found


def test_the_control_plane_refuses_it_and_writes_that_down(one: Node) -> None:
    one.join("burglar", lifetime=3600)
    api, number = one.mesh.api, serial(one, "burglar")
    api.request("POST", REVOKED, {"serial": number, "reason": "keyCompromise"})
    for message in asyncio.run(_refusals(one, "burglar")):
        assert f"the client certificate {number} is revoked" in message
    lines = [json.loads(line) for line in (one.mesh.directory / "audit.jsonl").read_text().splitlines()]
    refused = [line for line in lines if line["event"] == "refused" and number in line["reason"]]
    assert len(refused) == 2, "renewal and the JWT-SVID"


def test_a_stream_that_is_open_ends(one: Node, tmp_path: Path) -> None:
    need("envoy")
    with one.agent():
        proxy_port, admin, inbound, app = free_ports(4)
        text = one.mesh.mizzen(
            "bootstrap", "--namespace", "shop", "--service", "page", "--address", "127.0.2.9", "--port", str(inbound),
            "--app", f"127.0.0.1:{app}", "--proxy-port", str(proxy_port), "--admin-port", str(admin),
            "--agent-socket", str(one.socket("page")),
        )  # fmt: skip
        ports = {"admin": admin, "proxy": proxy_port, "inbound": inbound}
        running = start("envoy", yaml.safe_load(text), ports, tmp_path / "envoy")
        try:
            one.mesh.settle(1)
            one.mesh.api.request("POST", REVOKED, {"identity": "spiffe://cluster.local/ns/shop/sa/page"})
            until(lambda: not one.mesh.proxies(), "its stream is ended")
            assert one.mesh.process is not None
            one.mesh.process.wait_for(" is ended: the client certificate ")
            time.sleep(2.0)  # it tries again, and again
            assert not one.mesh.proxies()
        finally:
            running.stop()
