"""What goes wrong: the control plane is away, the disk is full, certificates end, files are not what they should be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest
from envoy.service.secret.v3.sds_pb2_grpc import SecretDiscoveryServiceStub

from tests.controlplane.nodeagent.node import Node, node
from tests.running import until


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Node]:
    with node(tmp_path) as made:
        yield made


def secret(socket: Path, name: str = "default") -> bytes:
    """What SDS says now. Raises grpc.RpcError."""
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        request = DiscoveryRequest(resource_names=[name])
        response = SecretDiscoveryServiceStub(channel).FetchSecrets(request, timeout=10)
        return bytes(response.resources[0].value)


def code(socket: Path) -> tuple[object, str]:
    try:
        secret(socket)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return None, ""


def test_the_control_plane_is_away_and_comes_back(one: Node) -> None:
    one.join("reviews", lifetime=24)
    socket = one.socket("reviews")
    with one.agent() as agent:
        one.mesh.kill()
        agent.wait_for("not renewed (attempt 2)")
        assert secret(socket), "what is good is served"
        assert agent.metric("mizzen_agent_renewal_failures_total", workload="shop/reviews") >= 2
        assert agent.ready()[0] == 200
        one.mesh.start()
        agent.wait_for("shop/reviews: renewed until")
        assert agent.ready()[0] == 200 and secret(socket)


def test_what_has_ended_is_not_served(one: Node) -> None:
    directory = one.join("reviews", lifetime=4)
    socket = one.socket("reviews")
    with one.agent() as agent:
        one.mesh.kill()
        agent.wait_for("it is not served any more")
        assert "ERROR controlplane.nodeagent: shop/reviews: not renewed" in agent.output, "louder as the end is near"
        until(lambda: code(socket)[0] is grpc.StatusCode.UNAVAILABLE, "it is refused")
        words = code(socket)[1]
        assert "the certificate of spiffe://cluster.local/ns/shop/sa/reviews ended" in words
        assert secret(socket, "ROOTCA"), "the roots are good"
        status, complaint = agent.ready()
        assert status == 503 and words in complaint
        assert agent.metric("mizzen_agent_certificate_good", workload="shop/reviews") == 0
        agent.wait_for("no certificate: the last ended")
        agent.wait_for("mizzen token create --namespace shop --service-account reviews")
        agent.wait_for(f"--token TOKEN --identity-dir {directory}")
        one.mesh.start()
        one.join("reviews", lifetime=3600)
        agent.wait_for("taking the certificate that was put into")
        until(lambda: code(socket)[0] is None, "it is served")
        assert agent.ready()[0] == 200
    assert (directory / "chain.pem").exists()


def test_a_stream_ends_with_its_certificate(one: Node) -> None:
    one.join("reviews", lifetime=4)
    with one.agent() as agent:
        one.mesh.kill()
        with grpc.insecure_channel(f"unix:{one.socket('reviews')}") as channel:
            stop = iter([DiscoveryRequest(resource_names=["default"])])

            def requests() -> Iterator[DiscoveryRequest]:
                yield from stop
                agent.wait_for("it is not served any more")
                until(lambda: ended, "the stream has ended")

            ended: list[object] = []
            responses = SecretDiscoveryServiceStub(channel).StreamSecrets(requests(), timeout=30)
            next(responses)
            with pytest.raises(grpc.RpcError) as caught:
                next(responses)
            ended.append(caught.value)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "ended" in caught.value.details()


@contextmanager
def full_disk(directory: Path) -> Iterator[None]:
    """A file system of its own at a directory, with no room."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    kept = directory.with_name(".kept")
    shutil.copytree(directory, kept)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(directory)], capture_output=True)
    if mounted.returncode != 0:
        shutil.rmtree(kept)
        pytest.skip(f"no file system can be mounted: {mounted.stderr.decode().strip()}")
    try:
        shutil.copytree(kept, directory, dirs_exist_ok=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)
        shutil.rmtree(kept)


def test_a_full_disk(one: Node) -> None:
    directory = one.join("reviews", lifetime=8)
    with full_disk(directory):
        before = {path.name: path.read_bytes() for path in directory.iterdir()}
        filler = directory / "filler"
        with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with one.agent() as agent:
            served = secret(one.socket("reviews"))
            agent.wait_for("the new certificate is served from memory")
            assert "No space left on device" in agent.output
            assert secret(one.socket("reviews")) != served
            assert {name: (directory / name).read_bytes() for name in before} == before, "what was there is whole"
            assert agent.metric("mizzen_agent_write_failures_total", workload="shop/reviews") >= 1
            filler.unlink()
            agent.wait_for("the certificate is kept in")
            until(lambda: (directory / "secret.json").read_bytes() != before["secret.json"], "it is written")


def test_who_comes_changes_and_goes(one: Node) -> None:
    with one.agent() as agent:
        assert "ready: 0 workloads" in agent.output
        directory = one.join("late")
        agent.wait_for(f"serving shop/late {one.socket('late')}")
        assert secret(one.socket("late"))
        (directory / "agent.json").write_text(
            json.dumps({**json.loads((directory / "agent.json").read_text()), "uid": [os.geteuid(), 12345]})
        )
        agent.wait_for("the socket is made anew")
        until(lambda: code(one.socket("late"))[0] is None, "it is served again")
        shutil.rmtree(directory)
        agent.wait_for("shop/late: the identity is gone")
        until(lambda: not one.socket("late").exists(), "the socket is away")


def test_sigterm_ends_it(one: Node) -> None:
    one.join("reviews")
    with one.agent() as agent:
        with grpc.insecure_channel(f"unix:{one.socket('reviews')}") as channel:
            requests = iter([DiscoveryRequest(resource_names=["default"])])
            assert next(SecretDiscoveryServiceStub(channel).StreamSecrets(requests, timeout=10)).resources
            agent.process.send(signal.SIGTERM)
            assert agent.process.end() == 0
        assert not one.socket("reviews").exists()
        assert "Traceback" not in agent.output
    with one.agent():
        assert secret(one.socket("reviews")), "it starts again in the same place"


def test_after_a_kill_it_starts_again(one: Node) -> None:
    one.join("reviews")
    with one.agent() as agent:
        agent.process.send(signal.SIGKILL)
        agent.process.end()
    assert one.socket("reviews").exists()
    one.mesh.kill()  # a reboot while the control plane is away
    with one.agent():
        assert secret(one.socket("reviews"))


def test_identities_that_are_none(one: Node) -> None:
    for name in ("good", "mismatch", "garbage", "cut", "rootless", "unknown"):
        one.join(name)
    shop = one.identities / "shop"
    (shop / "mismatch").rename(shop / "other")
    (shop / "garbage" / "secret.json").write_text("{}")
    (shop / "cut" / "secret.json").unlink()
    (shop / "cut" / "key.pem").write_bytes((shop / "good" / "key.pem").read_bytes())
    (shop / "rootless" / "root.pem").unlink()
    with (shop / "unknown" / "agent.json").open("w") as file:
        json.dump({"server": "https://127.0.0.1:1", "user": 1}, file)
    with one.agent() as agent:
        assert "ready: 1 workloads" in agent.output
        status, words = agent.ready()
        assert status == 503
        for name, expected in (
            ("shop/other", "agent.json: serviceAccount: is 'mismatch', but the directory is 'other'"),
            ("shop/garbage", "remove it to go on by chain.pem and key.pem"),
            ("shop/cut", "the key is not the certificate's: join again"),
            ("shop/rootless", "root.pem is missing"),
            ("shop/unknown", "user: is not known"),
        ):
            line = next(line for line in words.splitlines() if line.startswith(name))
            assert expected in line, line
            assert f"{name}: not served" in agent.output
        assert agent.metric("mizzen_agent_bad_identities") == 5
        (shop / "garbage" / "secret.json").unlink()
        agent.wait_for("serving shop/garbage")


def test_a_lifetime_that_is_not_given(tmp_path: Path) -> None:
    """What the control plane gives at most was lowered: a shorter life is better than none."""
    with node(tmp_path, "--workload-certificate-lifetime", "6", "--max-workload-certificate-lifetime", "7") as one:
        directory = one.join("reviews")
        one.hasten(directory, 3600)
        with one.agent() as agent:
            agent.wait_for("shop/reviews: not for 3600 s, so for as long as the control plane has it")
            agent.wait_for("shop/reviews: renewed until")
