"""One workload's directory, processes and connections, and what they cannot do to the others on a node."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from grpclib.client import Channel
from grpclib.const import Cardinality

from controlplane.citadel.signers import key_pem, new_root, pem
from controlplane.nodeagent import control_plane
from controlplane.nodeagent.agent import Agent
from controlplane.nodeagent.identity_directory import (
    AGENT,
    BUNDLE,
    CHAIN,
    KEY,
    ROOT,
    SECRET,
    Renewing,
    write_pair,
    write_private,
)
from controlplane.nodeagent.listening import WorkloadServer
from controlplane.nodeagent.trust_bundle import parse_bundle
from controlplane.nodeagent.workload import read_identity
from tests.controlplane.nodeagent.test_files import HOUR, NOW

ROOT_ = new_root("cluster.local")
OTHER = new_root("cluster.local")


def identity(identities: Path, account: str, *, key: Any = None, server: str = "https://127.0.0.1:1") -> Path:
    """A directory as `mizzen join` writes it; the certificate has another key than its own if one is given."""
    directory = identities / "shop" / account
    directory.mkdir(parents=True)
    own = ec.generate_private_key(ec.SECP256R1())
    assert ROOT_.key is not None
    names = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(f"spiffe://cluster.local/ns/shop/sa/{account}")]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ROOT_.issuer.subject)
        .public_key(key or own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - HOUR)
        .not_valid_after(NOW + HOUR)
        .add_extension(names, critical=True)
        .sign(ROOT_.key, hashes.SHA256())
    )
    write_pair(directory, pem(certificate) + ROOT_.chain, key_pem(own))
    write_private(directory / ROOT, pem(ROOT_.root))
    write_private(directory / AGENT, Renewing(server, "shop", account).document())
    return directory


async def soon(condition: Callable[[], Any], what: str) -> None:
    try:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what) from None


def with_agent(identities: Path, test: Callable[[Agent], Awaitable[None]]) -> None:
    async def main() -> None:
        agent = Agent(identities, identities.parent / "s", interval=0.05)
        await agent.start()
        running = asyncio.create_task(agent.run())
        try:
            await test(agent)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await agent.stop()

    asyncio.run(main())


def _ed25519(directory: Path) -> None:
    shutil.rmtree(directory)
    identity(directory.parents[1], directory.name, key=ed25519.Ed25519PrivateKey.generate().public_key())


def _fifo(name: str) -> Callable[[Path], None]:
    def make(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        os.mkfifo(directory / name)

    return make


def _deep(name: str) -> Callable[[Path], None]:
    return lambda directory: write_private(directory / name, b"[" * 100_000)


def _directory(directory: Path) -> None:
    (directory / AGENT).unlink()
    (directory / AGENT).mkdir()


ODD = {
    "ed25519": (_ed25519, "neither ECDSA nor RSA"),
    "deep agent": (_deep(AGENT), "is not JSON"),
    "deep secret": (_deep(SECRET), "is not what mizzen has written"),
    "fifo agent": (_fifo(AGENT), "is not a regular file"),
    "fifo secret": (_fifo(SECRET), "is not a regular file"),
    "fifo root": (_fifo(ROOT), "is not a regular file"),
    "fifo bundle": (_fifo(BUNDLE), "is not a regular file"),
    "directory": (_directory, "Is a directory|is not a regular file"),
}


@pytest.mark.parametrize("how", ODD)
def test_an_odd_directory_is_told_and_passed_over(how: str, tmp_path: Path) -> None:
    """At the start, and while the agent runs, when the others are noticed as before."""
    identities = tmp_path / "i"
    identity(identities, "good")
    make, words = ODD[how]
    make(identity(identities, "odd"))

    async def test(agent: Agent) -> None:
        assert set(agent.workloads) == {"shop/good"}
        assert len(agent.complaints()) == 1
        assert re.search(words, agent.bad["shop/odd"]), agent.bad
        make(identity(identities, "later"))
        identity(identities, "new")
        await soon(lambda: "shop/new" in agent.workloads, "others are noticed")
        await soon(lambda: "shop/later" in agent.bad or "shop/later" in agent.workloads, "it is told")
        shutil.rmtree(identities / "shop" / "odd")
        identity(identities, "odd")
        await soon(lambda: "shop/odd" in agent.workloads and "shop/odd" not in agent.bad, "it is good now")

    with_agent(identities, test)


def test_what_cannot_be_looked_into_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identities = tmp_path / "i"
    identity(identities, "good")
    (identities / "closed").mkdir()
    iterdir = Path.iterdir
    closed = {"closed"}

    def refusing(path: Path) -> Iterator[Path]:
        if path.name in closed and path.parent == identities:
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refusing)

    async def test(agent: Agent) -> None:
        assert set(agent.workloads) == {"shop/good"} and "Permission denied" in agent.bad["closed"]
        closed.add("shop")
        await soon(lambda: "shop" in agent.bad, "it is told")
        assert set(agent.workloads) == {"shop/good"}, "and goes on being served"
        closed.clear()
        await soon(lambda: not agent.bad, "all is good again")
        assert set(agent.workloads) == {"shop/good"}

    with_agent(identities, test)


def test_a_fifo_where_something_is_written(tmp_path: Path) -> None:
    path = tmp_path / "secret.json"
    os.mkfifo(tmp_path / f".secret.json.{os.getpid()}")
    write_private(path, b"x")
    assert path.read_bytes() == b"x" and stat.S_ISREG(path.stat().st_mode) and len(list(tmp_path.iterdir())) == 1


HOLD = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
held = []
for _ in range(300):
    one = socket.socket(socket.AF_UNIX)
    one.connect(sys.argv[1])
    held.append(one)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
def test_strangers_do_not_take_the_places_of_those_who_may(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for parent in tmp_path.parents:
        if str(parent).startswith("/tmp/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o711)
    path = tmp_path / "shop" / "a" / "agent.sock"

    async def main() -> None:
        server = WorkloadServer(path, [], {0, 1000, 1001})
        await server.start()
        stranger = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HOLD, str(path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert stranger.stdout is not None
            assert await stranger.stdout.readline() == b"held\n"
            await soon(lambda: "16 connections of uid 65534" in caplog.text, "they are bounded")
            for _ in range(300):  # one after the other: a place is given back
                reader, writer = await asyncio.open_unix_connection(str(path))
                assert len(await asyncio.wait_for(reader.readexactly(9), 5)) == 9, "the server's settings"
                writer.close()
                await writer.wait_closed()
            assert caplog.text.count("no more are taken") == 1
        finally:
            await asyncio.wait_for(stranger.communicate(b""), 10)
            await server.stop()

    asyncio.run(main())


def test_who_joins_again_keeps_the_roots_that_were_heard_of_since(tmp_path: Path) -> None:
    identities = tmp_path / "i"
    directory = identity(identities, "a")
    told = {"trustDomain": "cluster.local", "version": 7, "roots": (pem(ROOT_.root) + pem(OTHER.root)).decode(),
            "jwks": {"keys": [{"kid": "1"}]}}  # fmt: skip
    bundle = parse_bundle(told, "cluster.local")
    write_private(directory / BUNDLE, bundle.document())

    async def test(agent: Agent) -> None:
        workload = agent.workloads["shop/a"]
        again = identity(tmp_path / "again", "a")
        (directory / BUNDLE).unlink()
        for name in (KEY, CHAIN, SECRET):
            os.replace(again / name, directory / name)
        serial = read_identity(directory).svid.serial
        await soon(lambda: workload.svid.serial == serial, "it is taken")
        assert workload.current.material.bundle == bundle
        # of another mesh the root alone is believed
        stranger = identity(tmp_path / "other", "a")
        write_private(directory / ROOT, pem(new_root("cluster.local").root))
        for name in (KEY, CHAIN, SECRET):
            os.replace(stranger / name, directory / name)
        await soon(lambda: workload.bundle.version == "" and workload.bundle.roots.count(b"BEGIN") == 1, "another root")

    with_agent(identities, test)


def test_what_was_joined_is_not_written_over_by_what_was_not_kept(tmp_path: Path) -> None:
    identities = tmp_path / "i"
    directory = identity(identities, "a")

    async def test(agent: Agent) -> None:
        workload = agent.workloads["shop/a"]
        workload._unsaved, workload._save_again = True, 1e18  # a renewal for which the disk had no room
        again = identity(tmp_path / "again", "a", server="https://127.0.0.1:2")
        serial = read_identity(again).svid.serial
        for name in (AGENT, KEY, CHAIN, SECRET):
            os.replace(again / name, directory / name)
        await soon(lambda: agent.workloads.get("shop/a") not in (None, workload), "it is served anew")
        assert agent.workloads["shop/a"].svid.serial == read_identity(directory).svid.serial == serial

    with_agent(identities, test)


def test_local_clients_do_not_make_the_agent_ask_and_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One never takes the roots, another takes the same thing again and again."""
    identities = tmp_path / "i"
    identity(identities, "a")
    bundle = parse_bundle(
        {"trustDomain": "cluster.local", "version": 7, "roots": pem(ROOT_.root).decode()}, "cluster.local"
    )
    asked = 0

    async def told(self: Any, domain: str, have: str = "") -> Any:
        nonlocal asked
        asked += 1
        await asyncio.sleep(30 if have else 0.005)
        return bundle

    monkeypatch.setattr(control_plane.ControlPlane, "trust_bundle", told)

    async def test(agent: Agent) -> None:
        channel = Channel(path=str(tmp_path / "s" / "shop" / "a" / "agent.sock"))
        path = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
        said = 0

        async def talk(name: str, repeats: bool) -> None:
            nonlocal said
            async with channel.request(path, Cardinality.STREAM_STREAM, DiscoveryRequest, DiscoveryResponse) as stream:
                await stream.send_message(DiscoveryRequest(resource_names=[name]))
                answer: Any = await stream.recv_message()
                while True:
                    if repeats:
                        nonce, version = answer.nonce, answer.version_info
                        await stream.send_message(
                            DiscoveryRequest(resource_names=[name], response_nonce=nonce, version_info=version)
                        )
                        said += 1
                    await asyncio.sleep(0.001)

        talking = [asyncio.create_task(talk("ROOTCA", False)), asyncio.create_task(talk("default", True))]
        await soon(lambda: said > 300, "they talk")
        assert asked <= 4
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)
        channel.close()

    with_agent(identities, test)
