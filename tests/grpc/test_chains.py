"""Two proxies one behind the other, as in a mesh, with TLS between them: ours and real Envoy in both orders, and two of
ours."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import pytest

from tests.differential.proxies import ENVOY, SIDECAR
from tests.grpc import messages as m
from tests.grpc.bootstraps import Document, bootstrap, cluster, listener, to
from tests.grpc.client import PlainStub, TestStub, open_channel
from tests.grpc.service import Service
from tests.grpc.subjects import KINDS, proxy_of, skip_unless_available, stats
from tests.grpc.test_interop import BOUND, LARGE_RESPONSE, SPECIAL, Requests, failure, large, output


@pytest.fixture(
    scope="module",
    params=[(SIDECAR, SIDECAR), (SIDECAR, ENVOY), (ENVOY, SIDECAR)] if SIDECAR in KINDS else [],
    ids=" to ".join,
)
def chain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, grpc.Channel]]:
    """A service, and a channel to it through two proxies."""
    first, second = request.param
    for kind in request.param:
        skip_unless_available(kind)
    service = Service()

    def behind(ports: Mapping[str, int]) -> Document:
        front = listener("tls", ports["tls"], [to("grpc")], tls=True)
        return bootstrap([front], [cluster("grpc", service.port)], ports["admin"])

    directory: Path = tmp_path_factory.mktemp("chain")
    try:
        with proxy_of(second, ("tls",), behind, directory / "second") as inner:

            def before(ports: Mapping[str, int]) -> Document:
                upstream = cluster("next", inner.ports["tls"], tls=True)
                return bootstrap([listener("plain", ports["plain"], [to("next")])], [upstream], ports["admin"])

            with proxy_of(first, ("plain",), before, directory / "first") as outer:
                with open_channel(outer.ports["plain"]) as channel:
                    yield service, channel
                found = stats(outer)
                assert found["cluster.next.upstream_cx_http2_total"] == found["cluster.next.ssl.handshake"] == 1
    finally:
        service.stop()


Chain = tuple[Service, grpc.Channel]


def test_unary_calls(chain: Chain) -> None:
    stub = TestStub(chain[1])
    assert stub.unary_call(large(), timeout=BOUND).payload.body == bytes(LARGE_RESPONSE)
    calls = [stub.unary_call.future(large(), timeout=BOUND) for _ in range(30)]
    assert {len(call.result().payload.body) for call in calls} == {LARGE_RESPONSE}


def test_ping_pong(chain: Chain) -> None:
    requests = Requests()
    call = PlainStub(chain[1]).converse(iter(requests), timeout=BOUND)
    for size in (0, 1, 1000, 100_000, 1_000_000):
        requests.send(bytes(size))
        assert next(call) == bytes(size)
    requests.half_close()
    assert list(call) == [b"bye"]


def test_metadata(chain: Chain) -> None:
    metadata = [("x-own-text", "value"), ("x-own-data-bin", b"\x00\xff\xab" * 1000)]
    _, call = PlainStub(chain[1]).metadata.with_call(b"", metadata=metadata, timeout=BOUND)
    for found in (call.initial_metadata(), call.trailing_metadata()):
        assert [tuple(one) for one in found if one[0].startswith("x-own-")] == metadata


def test_status(chain: Chain) -> None:
    wanted = m.EchoStatus(code=2, message=SPECIAL)
    call = TestStub(chain[1]).full_duplex_call(iter([output(response_status=wanted)]), timeout=BOUND)
    assert failure(call) == (grpc.StatusCode.UNKNOWN, SPECIAL)


def test_cancellation(chain: Chain) -> None:
    service, channel = chain
    name = uuid.uuid4().bytes
    call = PlainStub(channel).forever(name, timeout=BOUND)
    assert next(call) == b"first"
    call.cancel()
    service.plain.calls.wait("over", name, 1.0)
