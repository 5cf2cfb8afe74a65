"""The rotation of the root: its gates, who is waited for, and what whoever pins an older root sees."""

from __future__ import annotations

import asyncio
import datetime
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from controlplane.citadel.authority_state import Phase
from controlplane.citadel.citadel import Citadel
from controlplane.citadel.server_certificates import ServerCertificates
from controlplane.citadel.signers import pem
from controlplane.galley.sqlite_store import SqliteStore
from controlplane.model.authority_operations import NotNow
from tests.controlplane.citadel.test_authority import der, signing_request
from tests.controlplane.citadel.test_issuing import REVIEWS, SPIFFE_ID, audited, leaf_of, with_citadel
from tests.controlplane.citadel.test_plugged import made
from tests.controlplane.citadel.test_plugged import pytestmark as needs_openssl

HOST = "10.0.0.7"


async def until(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(what) from None


def rotating(directory: Path, test: Callable[[Citadel], Awaitable[None]], **options: Any) -> None:
    """With what runs on a control plane that leads."""

    async def run(citadel: Citadel) -> None:
        tasks = [
            asyncio.create_task(one)
            for one in (citadel.rotations.lead(), citadel.rotations.report(), citadel.bundles.follow())
        ]
        try:
            await test(citadel)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    with_citadel(directory, run, **options)


async def certify(citadel: Citadel, lifetime: float, host: str = HOST) -> bytes:
    return await citadel.issuance.certify(REVIEWS, signing_request(), lifetime=lifetime, source=f"{host}:5")


async def confirm(citadel: Citadel, host: str = HOST) -> None:
    version = citadel.bundles.current.version
    await citadel.issuance.changed_bundle(REVIEWS, version, 0.0, f"{host}:6")


def since(citadel: Citadel) -> int:
    rotation = citadel.authority.state.rotation
    return 0 if rotation is None else rotation.since


def phase(citadel: Citadel) -> Phase | None:
    rotation = citadel.authority.state.rotation
    return None if rotation is None else rotation.phase


async def begin(citadel: Citadel, timeout: float | None = None) -> None:
    await citadel.operations.rotate(key_type="ecdsa", timeout=timeout, who="admin")
    await until(lambda: since(citadel) > 0, "the version to confirm is known")


def test_gate_by_gate(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        old = citadel.authority.certificate
        await confirm(citadel)  # of what was before: that is not enough
        leaf = leaf_of(await certify(citadel, 2))
        await certify(citadel, 1, "10.0.0.8")
        await begin(citadel)
        assert citadel.authority.certificate == old and len(citadel.bundles.current.roots) == 2
        leaf_of(await certify(citadel, 2)).verify_directly_issued_by(old)
        status = (await citadel.operations.status())["rotation"]
        assert (status["gate"], status["known"], status["unconfirmed"]) == (1, 2, 2)
        assert [(one["identity"], one["host"]) for one in status["waitingFor"]] == [
            (SPIFFE_ID, "10.0.0.8"),
            (SPIFFE_ID, HOST),
        ]
        await confirm(citadel)
        assert phase(citadel) is Phase.DISTRIBUTING, "one is missing"
        await until(lambda: phase(citadel) is Phase.MOVING, "the other's certificate has ended, so nobody waits")
        new = citadel.authority.certificate
        assert new != old and set(citadel.authority.state.roots) == {new, old}
        assert citadel.bundles.current.renew_within > 0
        status = (await citadel.operations.status())["rotation"]
        assert status["gate"] == 2 and status["notMoved"] == 1
        assert status["lastCertificateEnds"] >= leaf.not_valid_after_utc.timestamp()
        fresh = await certify(citadel, 30)
        leaf_of(fresh).verify_directly_issued_by(new)
        assert (await citadel.operations.status())["rotation"]["gate"] == 3
        await until(lambda: phase(citadel) is None, "the old root leaves")
        assert datetime.datetime.now(datetime.UTC) > leaf.not_valid_after_utc
        assert citadel.authority.state.roots == (new,) and citadel.bundles.current.renew_within == 0
        assert (await citadel.credentials.authenticate(certificate=der(fresh))).service_account == "reviews"
        events = [line["event"] for line in audited(tmp_path)]
        assert [event for event in events if event.startswith("root-")] == [
            "root-distributed",
            "root-signs",
            "root-removed",
        ]

    rotating(tmp_path, test)


def test_an_agent_that_is_there_but_late_is_waited_for(tmp_path: Path) -> None:
    """It has no certificate from here, and asks all the same: it is known by its questions."""

    async def test(citadel: Citadel) -> None:
        await confirm(citadel, "10.0.0.9")
        await begin(citadel)
        await asyncio.sleep(1.2)  # some looks of the leader
        assert phase(citadel) is Phase.DISTRIBUTING
        await confirm(citadel, "10.0.0.9")
        await until(lambda: phase(citadel) is not Phase.DISTRIBUTING, "all have confirmed")

    rotating(tmp_path, test)


def test_who_leads_can_be_told_to_end_while_something_changes(tmp_path: Path) -> None:
    """The cancellation may come at any turn of the loop after the change: it is never lost."""

    async def test(citadel: Citadel) -> None:
        for turns in range(6):
            leading = asyncio.create_task(citadel.rotations.lead())
            for _ in range(4):
                await asyncio.sleep(0)  # it has looked, and waits for a change
            for changed in citadel.authority.listeners:
                changed()
            for _ in range(turns):
                await asyncio.sleep(0)
            leading.cancel()
            done, _ = await asyncio.wait([leading], timeout=1)
            assert done, f"cancelled {turns} turns after the change, it goes on"
            assert leading.cancelled()

    with_citadel(tmp_path, test)


def test_an_operator_goes_on_without_those_who_are_late(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        await certify(citadel, 3600)
        await begin(citadel)
        with pytest.raises(NotNow, match="gate 1"):
            await citadel.operations.advance(gate=2, who="admin")
        await citadel.operations.advance(gate=1, who="admin")
        assert phase(citadel) is Phase.MOVING
        with pytest.raises(NotNow, match="signs already"):
            await citadel.operations.abort(who="admin")
        with pytest.raises(NotNow, match="under way"):
            await citadel.operations.rotate(key_type="ecdsa", timeout=None, who="admin")
        with pytest.raises(NotNow, match="gate 2 or 3"):
            await citadel.operations.advance(gate=1, who="admin")
        await citadel.operations.advance(gate=2, who="admin")
        assert phase(citadel) is None and len(citadel.authority.state.roots) == 1
        forced = [line for line in audited(tmp_path) if line["event"] == "rotation-forced"]
        assert [line["gate"] for line in forced] == [1, 2] and "without 1" in forced[0]["reason"]

    rotating(tmp_path, test)


def test_a_timeout_that_an_operator_accepts(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        await certify(citadel, 3600)
        await begin(citadel, timeout=1.0)
        assert phase(citadel) is Phase.DISTRIBUTING
        await until(lambda: phase(citadel) is Phase.MOVING, "the time is up")
        (line,) = [line for line in audited(tmp_path) if line["event"] == "root-signs"]
        assert "1 have not confirmed in the time that admin has accepted" in line["reason"]

    rotating(tmp_path, test)


def test_it_is_taken_back_before_it_signs(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        before = citadel.authority.state
        with pytest.raises(NotNow, match="no rotation"):
            await citadel.operations.abort(who="admin")
        await certify(citadel, 3600)
        await begin(citadel)
        await citadel.operations.abort(who="admin")
        after = citadel.authority.state
        assert (after.roots, after.signers, after.active) == (before.roots, before.signers, before.active)
        assert phase(citadel) is None and len(citadel.bundles.current.roots) == 1
        await begin(citadel)

    rotating(tmp_path, test)


def test_a_restart_in_the_middle_goes_on(tmp_path: Path) -> None:
    roots: list[tuple[x509.Certificate, ...]] = []

    async def first(citadel: Citadel) -> None:
        await certify(citadel, 2)
        await begin(citadel)
        roots.append(citadel.authority.state.roots)

    async def second(citadel: Citadel) -> None:
        assert phase(citadel) is Phase.DISTRIBUTING and citadel.authority.state.roots == roots[0]
        await confirm(citadel)
        await until(lambda: phase(citadel) is Phase.MOVING, "it signs")

    async def third(citadel: Citadel) -> None:
        assert citadel.authority.certificate == roots[0][1]
        await until(lambda: phase(citadel) is None, "the old root leaves")
        assert citadel.authority.state.roots == (roots[0][1],)

    for test in (first, second, third):
        rotating(tmp_path, test)


class Alive:
    """Who of several control planes is there."""

    def __init__(self, identity: str, everybody: list[str]) -> None:
        self.identity = identity
        self._everybody = everybody

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def alive(self) -> list[str]:
        return self._everybody


def test_several_control_planes_know_together_who_has_confirmed(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        (tmp_path / "other").mkdir()
        leading, other = await Citadel.open(store, tmp_path), await Citadel.open(store, tmp_path / "other")
        everybody = ["a", "b"]
        leading.rotations.presence, other.rotations.presence = Alive("a", everybody), Alive("b", everybody)
        tasks = [
            asyncio.create_task(one)
            for one in (
                leading.rotations.lead(),
                leading.rotations.report(),
                *(c.bundles.follow() for c in (leading, other)),
            )
        ]
        await certify(leading, 3600)  # issued by the one
        await certify(other, 3600, "10.0.0.8")
        await begin(leading)
        status = (await leading.operations.status())["rotation"]
        assert status["waitingForControlPlanes"] == ["b"]
        await until(lambda: since(other) == since(leading), "the other has heard of it")
        for citadel, host in ((other, HOST), (other, "10.0.0.8")):  # confirmed to the other
            await confirm(citadel, host)
        await asyncio.sleep(1.2)
        assert phase(leading) is Phase.DISTRIBUTING, "the other has not told"
        tasks.append(asyncio.create_task(other.rotations.report()))
        await until(lambda: phase(leading) is Phase.MOVING, "all have confirmed, here or there")
        await until(lambda: phase(other) is Phase.MOVING, "both know")
        leaf_of(await certify(other, 60)).verify_directly_issued_by(leading.authority.certificate)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for citadel in (leading, other):
            await citadel.close()
        await store.close()

    asyncio.run(main())


def test_whoever_pins_an_older_root_finds_the_way(tmp_path: Path) -> None:
    """A copy of a kubeconfig, a join token, a bootstrap with the root in it: made before two rotations."""

    async def test(citadel: Citadel) -> None:
        certificates = ServerCertificates(citadel.authority)
        server = await asyncio.start_server(
            lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=certificates.context(client_certificates=True)
        )
        port = server.sockets[0].getsockname()[1]
        pinned = [citadel.authority.root]
        _, token = await citadel.tokens.create("shop", "reviews", lifetime=60, who="admin")

        async def reaches(root: bytes) -> None:
            context = ssl.create_default_context(cadata=root.decode())
            context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
            writer.close()

        for _ in range(2):
            await certify(citadel, 3600)  # who does not confirm and does not renew: it goes on when we say so
            await begin(citadel)
            for root in (*pinned, citadel.authority.pem):
                await reaches(root)
            await citadel.operations.advance(gate=1, who="admin")
            for root in (*pinned, citadel.authority.root, citadel.authority.pem):
                await reaches(root)
            await citadel.operations.advance(gate=2, who="admin")
            pinned.append(citadel.authority.root)
            for root in pinned:
                await reaches(root)
        assert len(citadel.authority.state.roots) == 1 and len(citadel.authority.state.retired) == 2
        assert pem(citadel.authority.state.roots[0]) + pinned[1] + pinned[0] == citadel.issuance.root()
        assert token.rpartition("-")[2] not in citadel.authority.hash
        server.close()
        await server.wait_closed()

    rotating(tmp_path, test)


@needs_openssl
def test_an_authority_of_an_operator_comes_by_the_gates(tmp_path: Path) -> None:
    async def own(citadel: Citadel) -> None:
        await certify(citadel, 3600)

    async def given(citadel: Citadel) -> None:
        old = citadel.authority.certificate
        assert phase(citadel) is Phase.DISTRIBUTING and len(citadel.authority.state.roots) == 2
        leaf_of(await certify(citadel, 3600)).verify_directly_issued_by(old)
        with pytest.raises(NotNow, match="--ca-directory"):
            await citadel.operations.rotate(key_type="ecdsa", timeout=None, who="admin")
        await until(lambda: since(citadel) > 0, "the version is known")
        await confirm(citadel)
        await until(lambda: phase(citadel) is Phase.MOVING, "it signs")
        assert citadel.authority.certificate != old
        assert leaf_of(await certify(citadel, 60)).issuer == citadel.authority.state.signer.issuer.subject
        await citadel.operations.advance(gate=2, who="admin")
        assert old not in citadel.authority.state.roots

    rotating(tmp_path, own)
    directory = made(tmp_path / "ca")
    rotating(tmp_path, given, ca_directory=directory)
    document = json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[-1])
    assert document["event"] == "rotation-forced"
