"""Whose processes may have which identity."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controlplane.nodeagent.node import Node, node
from tests.running import REPOSITORY, until

STRANGER, FRIEND = 54321, 54322

# Asks by plain grpcio; what it prints is the code and the words, or the identity. All is imported before it becomes the
# other user, to whom the directory of this checkout may be closed.
ASK = """
import os, sys
import grpc, grpc._channel
from controlplane.nodeagent.spiffe import workload_pb2 as messages
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
with grpc.insecure_channel("unix:" + sys.argv[1]) as channel:
    ask = channel.unary_stream("/SpiffeWorkloadAPI/FetchX509SVID", request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=messages.X509SVIDResponse.FromString)
    try:
        print(next(ask(messages.X509SVIDRequest(), metadata=(("workload.spiffe.io", "true"),), timeout=10)).svids[0].spiffe_id)
    except grpc.RpcError as error:
        print(error.code().name, error.details())
"""


def ask(path: Path, uid: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(path), str(uid)],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("node")
    with node(directory) as made:
        yield made


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
def test_other_users_are_refused(one: Node, tmp_path: Path) -> None:
    one.join("reviews", uids=(FRIEND, FRIEND + 1))
    one.join("page", uids=(FRIEND,))
    one.join("ratings")
    modes = {}
    with one.agent() as agent:
        for parent in one.sockets.parents:  # pytest's own directories are closed to others
            if str(parent).startswith("/tmp/") and not parent.stat().st_mode & 0o001:
                modes[parent] = stat.S_IMODE(parent.stat().st_mode)
                parent.chmod(modes[parent] | 0o111)
        try:
            reviews = one.socket("reviews")
            identity = "spiffe://cluster.local/ns/shop/sa/reviews"
            assert ask(reviews, FRIEND) == identity and ask(reviews, 0) == identity
            refused = ask(reviews, STRANGER)
            assert refused.startswith(f"PERMISSION_DENIED uid {STRANGER} may not have the identity of shop/reviews"), (
                refused
            )
            assert agent.metric("mizzen_agent_refused_peers_total", workload="shop/reviews") == 1
            assert f"shop/reviews: a process of uid {STRANGER}" in agent.output
            # where one user alone may have it, the file itself is closed to others
            assert ask(one.socket("page"), FRIEND) == "spiffe://cluster.local/ns/shop/sa/page"
            assert ask(one.socket("page"), STRANGER).startswith("UNAVAILABLE")
            assert ask(one.socket("ratings"), FRIEND).startswith("UNAVAILABLE")
            mode = {name: one.socket(name).stat() for name in ("reviews", "page", "ratings")}
            assert {name: (found.st_uid, stat.S_IMODE(found.st_mode)) for name, found in mode.items()} == {
                "reviews": (0, 0o666), "page": (FRIEND, 0o600), "ratings": (0, 0o600)
            }  # fmt: skip
            for directory in (one.sockets, one.sockets / "shop", one.sockets / "shop" / "reviews"):
                assert stat.S_IMODE(directory.stat().st_mode) == 0o711
        finally:
            for parent, mode_ in modes.items():
                parent.chmod(mode_)


def test_no_boundary_is_said(one: Node) -> None:
    one.join("first", namespace="same")
    one.join("second", namespace="same")
    with one.agent() as agent:
        uid = os.geteuid()
        words = "there is no boundary between these workloads"
        line = next(line for line in agent.output.splitlines() if words in line and f"uid {uid}," in line)
        assert "same/first" in line and "same/second" in line


def test_another_agent_is_refused(one: Node) -> None:
    with one.agent():
        done = subprocess.run(
            [sys.executable, "-m", "controlplane.nodeagent", "--identities", str(one.identities),
             "--sockets", str(one.sockets), "--metrics-address", ""],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 1 and "another node agent serves in" in done.stderr


def test_memory_is_closed(one: Node) -> None:
    """No core dumps, and /proc/PID/mem is root's."""
    with one.agent() as agent:
        directory = Path(f"/proc/{agent.process.child.pid}")
        limits = next(line for line in (directory / "limits").read_text().splitlines() if "core file" in line)
        assert limits.split()[4:6] == ["0", "0"]
        if os.geteuid() != 0:
            with pytest.raises(PermissionError):
                (directory / "mem").open("rb")
        until(lambda: (directory / "environ").stat().st_uid == 0, "it is not dumpable")


def test_a_directory_that_others_write_to_is_refused(one: Node) -> None:
    namespace = one.sockets / "open"
    namespace.mkdir(parents=True)
    namespace.chmod(0o777)
    one.join("reviews", namespace="open")
    with one.agent() as agent:
        assert f"open/reviews: not served: {namespace}: others may write there" in agent.output
        status, words = agent.ready()
        assert status == 503 and "open/reviews" in words
        namespace.chmod(0o711)
        until(lambda: one.socket("reviews", "open").exists(), "it is tried again")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
def test_it_runs_as_an_ordinary_user(one: Node, tmp_path: Path) -> None:
    """And asks the control plane by a key in memory, though /proc is closed."""
    directory = one.join("plain", namespace="user")
    one.hasten(directory, 3600)
    for path in (directory, *directory.iterdir()):
        os.chown(path, STRANGER, STRANGER)
    sockets = tmp_path / "sockets"
    sockets.mkdir()
    os.chown(sockets, STRANGER, STRANGER)
    modes = {}
    for parent in {*one.identities.parents, *sockets.parents}:
        if str(parent).startswith("/tmp/") and not parent.stat().st_mode & 0o001:
            modes[parent] = stat.S_IMODE(parent.stat().st_mode)
            parent.chmod(modes[parent] | 0o111)
    code = (
        "import concurrent.futures.thread, encodings.idna, os\n"
        "from controlplane.nodeagent.__main__ import main\n"
        f"os.setgid({STRANGER}); os.setuid({STRANGER})\n"
        "main()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, "--identities", str(one.identities), "--sockets", str(sockets), "--metrics-address", ""],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        lines = []
        for line in child.stdout:
            lines.append(line)
            if (
                "the trust bundle is" in line
                or "tells no trust bundles" in line
                or "no word of the trust bundle" in line
            ):
                break
        assert "cannot reach" not in "".join(lines), lines
        assert ask(sockets / "user" / "plain" / "agent.sock", STRANGER) == "spiffe://cluster.local/ns/user/sa/plain"
    finally:
        child.kill()
        child.wait()
        for parent, mode in modes.items():
            parent.chmod(mode)
