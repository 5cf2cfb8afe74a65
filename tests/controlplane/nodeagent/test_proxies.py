"""Real Envoy and our sidecar take their certificates from the agent, and speak mTLS with one another by them."""

from __future__ import annotations

import http.client
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.controlplane.nodeagent.node import Node, node
from tests.controlplane.nodeagent.proxies import client, server
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import start
from tests.running import free_ports, until

PAGE, REVIEWS = "spiffe://cluster.local/ns/shop/sa/page", "spiffe://cluster.local/ns/shop/sa/reviews"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node(tmp_path_factory.mktemp("node")) as made:
        made.join("page")
        made.join("reviews")
        with made.agent():
            yield made


def need(*kinds: str) -> None:
    if "envoy" in kinds:
        try:
            envoy_binary()
        except EnvoyUnavailableError as error:
            pytest.skip(str(error))


@contextmanager
def both(
    node: Node, kinds: tuple[str, str], directory: Path, expected: str = REVIEWS, **names: str
) -> Iterator[tuple[int, int]]:
    """A client of the identity page, which expects ``expected`` at a server of the identity reviews: their ports."""
    need(*kinds)
    client_admin, client_port, server_admin, server_port = free_ports(4)
    documents = (
        client(client_admin, client_port, server_port, node.socket("page"), expected, **names),
        server(server_admin, server_port, node.socket("reviews"), PAGE),
    )
    ports = ({"admin": client_admin, "in": client_port}, {"admin": server_admin, "in": server_port})
    with ExitStack() as ending:
        for number in (1, 0):
            proxy = start(kinds[number], documents[number], ports[number], directory / str(number))
            ending.callback(proxy.stop)
        yield client_port, server_port


def status(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


@pytest.mark.parametrize(
    "kinds", [("envoy", "envoy"), ("envoy", "sidecar"), ("sidecar", "envoy"), ("sidecar", "sidecar")], ids="-".join
)
def test_two_proxies_know_one_another(one: Node, kinds: tuple[str, str], tmp_path: Path) -> None:
    with both(one, kinds, tmp_path) as (port, _):
        until(lambda: status(port) == 200, "they have their certificates")


@pytest.mark.parametrize("kind", ["envoy", "sidecar"])
def test_by_the_other_names(one: Node, kind: str, tmp_path: Path) -> None:
    with both(one, (kind, kind), tmp_path, own=PAGE, roots="spiffe://cluster.local") as (port, _):
        until(lambda: status(port) == 200, "they have their certificates")


@pytest.mark.parametrize("kind", ["envoy", "sidecar"])
def test_another_than_expected_is_not_spoken_with(one: Node, kind: str, tmp_path: Path) -> None:
    with both(one, (kind, kind), tmp_path, "spiffe://cluster.local/ns/shop/sa/ratings") as (port, _):
        assert status(port) == 503


@pytest.mark.parametrize("kind", ["envoy", "sidecar"])
def test_openssl_sees_the_certificate(one: Node, kind: str, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    page, reviews = (one.identities / "shop" / name for name in ("page", "reviews"))
    with both(one, (kind, kind), tmp_path) as (port, server_port):
        until(lambda: status(port) == 200, "they have their certificates")
        done = subprocess.run(
            [openssl, "s_client", "-connect", f"127.0.0.1:{server_port}", "-CAfile", str(reviews / "root.pem"),
             "-cert", str(page / "chain.pem"), "-key", str(page / "key.pem"), "-verify_return_error", "-quiet"],
            input="GET / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n",
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert "HTTP/1.1 200" in done.stdout and "hello" in done.stdout, done
        shown = subprocess.run(
            [openssl, "s_client", "-connect", f"127.0.0.1:{server_port}", "-showcerts",
             "-CAfile", str(reviews / "root.pem")],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert "Verify return code: 0 (ok)" in shown.stdout, shown
        text = subprocess.run(
            [openssl, "x509", "-noout", "-ext", "subjectAltName,keyUsage,basicConstraints"],
            input=shown.stdout, capture_output=True, text=True, timeout=30, check=True,
        ).stdout  # fmt: skip
        assert re.search(r"Subject Alternative Name: critical\s+URI:" + re.escape(REVIEWS), text)
        assert "CA:FALSE" in text and "Digital Signature" in text
