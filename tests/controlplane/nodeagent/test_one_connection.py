"""An agent keeps one connection to the control plane for all that it asks, and is whoever that was made by."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from controlplane.api import certificate_routes, server
from controlplane.citadel.authority_state import with_roots
from controlplane.citadel.signers import new_root
from controlplane.cli.api import Api
from controlplane.cli.identity import join
from controlplane.cli.kubeconfig import Access
from controlplane.nodeagent.control_plane import ControlPlane, ControlPlaneError
from controlplane.nodeagent.metrics import Metrics
from controlplane.nodeagent.workload import Identity, Workload, read_identity
from tests.controlplane.api.serving import Background, Client, until

DOMAIN = "cluster.local"


class Node:
    """One identity, and the connections that the control plane has seen since it joined."""

    def __init__(self, background: Background, directory: Path, made: list[server._Protocol]) -> None:
        self.background = background
        self.citadel = background.served.citadel
        self.made = made
        body = {"namespace": "shop", "serviceAccount": "reviews"}
        token = Client(background)("POST", "/mizzen/v1/tokens", body).json["token"]
        url = background.served.server.url
        directory = directory / "shop" / "reviews"
        join(Api(Access(url, background.served.authority.pem.decode(), "")), token, directory, lifetime=3600)
        self.identity: Identity = read_identity(directory)
        self.made.clear()

    def asks(self, test: Callable[[ControlPlane], Awaitable[None]]) -> None:
        async def main() -> None:
            control_plane = ControlPlane(self.identity.renewing.server)
            control_plane.show(self.identity.svid, self.identity.bundle)
            try:
                await test(control_plane)
            finally:
                await control_plane.close()

        asyncio.run(main())

    def revoke(self, serial: str) -> None:
        self.background.call(
            self.citadel.operations.revoke(serial=serial, identity="", reason="superseded", who="test")
        )


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    made: list[server._Protocol] = []
    real = server._Protocol.connection_made

    def connection_made(self: server._Protocol, transport: asyncio.Transport) -> None:
        made.append(self)
        real(self, transport)

    monkeypatch.setattr(server._Protocol, "connection_made", connection_made)
    with Background(tmp_path) as background:
        yield Node(background, tmp_path, made)


def test_questions_and_renewals_share_it(node: Node) -> None:
    async def test(control_plane: ControlPlane) -> None:
        bundle = await control_plane.trust_bundle(DOMAIN)
        assert bundle is not None
        svid = node.identity.svid
        for number in range(1, 4):
            await control_plane.jwt_svid(["reports"])
            assert await control_plane.trust_bundle(DOMAIN, bundle.version, wait=False) is None
            renewed = await control_plane.renew(svid.spiffe_id, 3600)
            assert len(node.made) == number
            (line,) = [one for one in node.citadel.issuance.issued() if one.serial == renewed.serial]
            assert line.authenticated == f"certificate {svid.serial}"
            svid = renewed
            control_plane.show(svid, node.identity.bundle)  # who is somebody else says so by another
        waiting = asyncio.create_task(control_plane.trust_bundle(DOMAIN, bundle.version))
        while not control_plane.is_busy:
            await asyncio.sleep(0.01)
        await control_plane.renew(svid.spiffe_id, None)
        assert len(node.made) == 5, "what is asked meanwhile has one of its own"
        assert not waiting.done()
        authority = node.citadel.authority
        another = new_root(DOMAIN).root
        change = authority.change(lambda state: with_roots(state, [another]), who="test")
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(change, node.background._loop))
        changed = await waiting
        assert changed is not None and len(node.made) == 5
        control_plane.show(svid, changed)
        await control_plane.trust_bundle(DOMAIN)
        assert len(node.made) == 6, "other roots are believed: the control plane proves itself again"

    node.asks(test)


def test_one_that_is_revoked_is_refused_on_a_connection_that_is_open(node: Node) -> None:
    async def test(control_plane: ControlPlane) -> None:
        await control_plane.trust_bundle(DOMAIN)
        await asyncio.to_thread(node.revoke, node.identity.svid.serial)
        for ask in (control_plane.trust_bundle(DOMAIN), control_plane.renew(node.identity.svid.spiffe_id, None)):
            with pytest.raises(ControlPlaneError, match="is revoked") as caught:
                await ask
            assert caught.value.status == 401
        assert len(node.made) == 1

    node.asks(test)


def test_what_was_closed_while_nobody_asked_is_made_again(node: Node) -> None:
    async def test(control_plane: ControlPlane) -> None:
        await control_plane.trust_bundle(DOMAIN)
        for protocol in node.made:
            node.background._loop.call_soon_threadsafe(protocol.transport.abort)
        svid = await control_plane.renew(node.identity.svid.spiffe_id, 3600)
        assert svid.serial != node.identity.svid.serial and len(node.made) == 2

    node.asks(test)


def test_a_renewal_waits_for_the_connection_if_there_is_time(node: Node) -> None:
    """It is asked when a question for the bundle has been answered, by the same connection; who hurries does not wait."""

    async def main() -> None:
        workload = Workload(node.identity, Metrics())
        running = asyncio.create_task(workload.run())
        try:
            while not (node.citadel.bundles.confirmations() and workload._control_plane.is_busy):
                await asyncio.sleep(0.01)
            before = workload.svid.serial
            renewing = asyncio.create_task(workload._attempt())
            await asyncio.sleep(0.3)
            assert not renewing.done() and len(node.made) == 1
            another = new_root(DOMAIN).root
            change = node.citadel.authority.change(lambda state: with_roots(state, [another]), who="test")
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(change, node.background._loop))
            await renewing
            assert workload.svid.serial != before
            async with asyncio.timeout(20):
                while len(node.made) < 3:  # by other roots, and as somebody else
                    await asyncio.sleep(0.01)
            assert workload._control_plane.is_busy
            workload.clock_jumped()
            await workload._attempt()
            assert len(node.made) == 4
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())


def test_where_there_is_no_room_it_asks_from_time_to_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(certificate_routes, "_MOST_WAITING", 0)
    with Background(tmp_path) as background, caplog.at_level(logging.WARNING, "controlplane.nodeagent"):
        node = Node(background, tmp_path, [])
        workload = Workload(node.identity, Metrics())

        async def main() -> None:
            running = asyncio.create_task(workload.run())
            try:
                await asyncio.to_thread(until, lambda: bool(node.citadel.bundles.confirmations()))
                await asyncio.to_thread(until, lambda: "from time to time alone" in caplog.text)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

        asyncio.run(main())
        (one,) = node.citadel.bundles.confirmations()
        assert one.version == node.citadel.bundles.current.version, "it confirms all the same"
        assert "as many as may" in caplog.text
