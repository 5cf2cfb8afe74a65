"""A proxy under attack, in turn the sidecar and real Envoy, between clients and upstreams of which some are hostile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.attacker import Attacker
from tests.attacks.bystander import MEGABYTES, Bystander, Memory
from tests.attacks.frames import ENHANCE_YOUR_CALM
from tests.attacks.hostile_upstream import HostileUpstream
from tests.differential.proxies import SIDECAR, Proxy
from tests.grpc.bootstraps import Document, bootstrap, cluster, listener, to
from tests.grpc.echo_upstream import EchoUpstream
from tests.grpc.subjects import KINDS, proxy_of, skip_unless_available, stats

IDLE = 0.7  # seconds that a stream may stand still


@dataclass
class Setting:
    """A running proxy. ``/echo`` goes to a good upstream and ``/good`` to another, ``/hostile`` to one that attacks, and
    ``/direct`` is answered by the proxy itself."""

    proxy: Proxy
    hostile: HostileUpstream

    @property
    def ours(self) -> bool:
        """Whether it is the sidecar."""
        return self.proxy.kind == SIDECAR

    @property
    def port(self) -> int:
        return self.proxy.ports["in"]

    def attacker(self, values: dict[int, int] | None = None, **options: Any) -> Attacker:
        """A connection that has said its preface and knows the proxy's."""
        made = Attacker(self.port, **options)
        made.begin(values)
        made.started()
        return made

    @contextmanager
    def unharmed(self, megabytes: float = MEGABYTES) -> Iterator[Bystander]:
        """Others are answered all the while, the memory of the process stays within a bound, and it lives on."""
        with Memory(self.proxy, megabytes), Bystander(self.port) as bystander:
            yield bystander
        self.proxy.check()
        slowest = max(bystander.latencies)
        print(f"{self.proxy.kind}: the slowest of {len(bystander.latencies)} requests beside it took {slowest:.3f} s")

    def has_ended(self, attacker: Attacker, *codes: int) -> None:
        """Its connection was ended by the proxy: ours says why, with ENHANCE_YOUR_CALM or one of ``codes``; Envoy says
        nothing in many cases."""
        assert attacker.until_closed(8), attacker
        print(f"{self.proxy.kind}: {attacker}")
        if self.ours:
            assert set(attacker.goaways) <= set(codes or (ENHANCE_YOUR_CALM,)), attacker
            assert attacker.goaways, attacker

    def counted(self, name: str) -> int:
        """A counter, as it is now; 0 where there is none."""
        return stats(self.proxy, name).get(name, 0)


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The proxy under attack."""
    found: str = request.param
    skip_unless_available(found)
    return found


@pytest.fixture(scope="session")
def upstreams() -> Iterator[tuple[EchoUpstream, EchoUpstream, HostileUpstream]]:
    """What both proxies share."""
    made = EchoUpstream(), EchoUpstream(), HostileUpstream()
    yield made
    for one in made:
        one.stop()


@pytest.fixture(scope="session")
def setting(
    kind: str, upstreams: tuple[EchoUpstream, EchoUpstream, HostileUpstream], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Setting]:
    """The proxy that all attacks share: what one of them leaves behind, the next one finds."""
    echo, good, hostile = upstreams

    def made(ports: Mapping[str, int]) -> Document:
        direct = {
            "match": {"prefix": "/direct"},
            "direct_response": {"status": 200, "body": {"inline_string": "hello"}},
        }
        routes = [direct, to("hostile", "/hostile", timeout="5s"), to("good", "/good"), to("echo")]
        limits: Document = {
            "request_headers_timeout": "0.5s",
            "stream_idle_timeout": f"{IDLE}s",
            "delayed_close_timeout": "0.1s",
        }
        breakers = {"max_requests": 100_000, "max_pending_requests": 100_000}
        wide: Document = {
            "circuit_breakers": {"thresholds": [breakers]}
        }  # so that one client cannot close them for all
        return bootstrap(
            [listener("in", ports["in"], routes, **limits), listener("tls", ports["tls"], routes, tls=True, **limits)],
            [
                cluster("echo", echo.port, **wide),
                cluster("good", good.port),
                cluster("hostile", hostile.port, **wide),
            ],
            ports["admin"],
        )

    with proxy_of(kind, ("in", "tls"), made, Path(tmp_path_factory.mktemp(kind))) as proxy:
        yield Setting(proxy, hostile)
