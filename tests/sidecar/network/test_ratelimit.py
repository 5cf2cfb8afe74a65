"""The network filter that asks a service: what it asks, what becomes of the connection, and what it counts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sidecar.config.core_types import TokenBucket
from sidecar.config.grpc_service import GrpcService
from sidecar.config.network_filters import LocalRateLimit
from sidecar.config.network_rate_limit import TYPE, NetworkRateLimit, parse_network_rate_limit
from sidecar.core.address import Address
from sidecar.core.connection_filter import ASKING
from sidecar.core.rate_limit_service import ERROR, OK, OVER_LIMIT, Decision, RateLimitService
from sidecar.core.rate_limits import Descriptor
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.worker import Worker
from sidecar.network.limits import LocalRateLimit as LocalRateLimitFilter
from sidecar.network.limits import SharedBuckets
from sidecar.network.ratelimit import RateLimit
from sidecar.telemetry.formatter import compile_text
from sidecar.telemetry.groups.network_filters import NetworkLocalRateLimitStats, NetworkRateLimitStats
from tests.sidecar.config.building import build, build_with_warnings
from tests.sidecar.listener.serving import Served, config, ended, exchange, in_thread, run, until


class Service(RateLimitService):
    """Keeps the questions; ``at_once`` answers before ``ask`` returns."""

    def __init__(self, at_once: Decision | None = None) -> None:
        self.at_once = at_once
        self.asked: list[tuple[str, tuple[Descriptor, ...]]] = []
        self.sinks: list[Any] = []
        self.cancelled = 0

    def ask(self, domain: str, descriptors: Any, hits_addend: int, sink: Any) -> Any:
        self.asked.append((domain, tuple(descriptors)))
        self.sinks.append(sink)
        if self.at_once is not None:
            sink.on_decision(self.at_once)
        return self

    def cancel(self) -> None:
        self.cancelled += 1


def make(service: Service, worker: Worker, **fields: Any) -> RateLimit:
    usual: dict[str, Any] = {"descriptors": ((("ip", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"), ("k", "v")),)}
    settings = NetworkRateLimit("limit", "d", rate_limit_service=GrpcService("limits"), **{**usual, **fields})
    return RateLimit(settings, NetworkRateLimitStats(), service, compile_text, worker)


def counts(filter: RateLimit) -> dict[str, int]:
    names = ("active", "cx_closed", "error", "failure_mode_allowed", "ok", "over_limit", "total")
    return {name: value for name in names if (value := getattr(filter.stats, name))}


def test_what_is_asked() -> None:
    async def main() -> None:
        service = Service()
        filter = make(service, Worker(asyncio.get_running_loop()))
        info = ConnectionInfo(1, Address("10.0.0.9", 80), Address("10.0.0.1", 5000), 0.0)
        assert filter.on_new_connection(info) == ASKING
        filter.ask(info, lambda delay: None)
        assert service.asked == [("d", (Descriptor(((b"ip", b"10.0.0.1"), (b"k", b"v"))),))]

    run(main)


@pytest.mark.parametrize(
    ("fields", "decision", "delay", "counted"),
    [
        ({}, Decision(OK), None, {"ok": 1}),
        ({}, Decision(OVER_LIMIT), 0.0, {"over_limit": 1, "cx_closed": 1}),
        ({"enforced": (0, 100)}, Decision(OVER_LIMIT), None, {"over_limit": 1}),
        ({}, Decision(ERROR), None, {"error": 1, "failure_mode_allowed": 1}),
        ({"failure_mode_deny": True}, Decision(ERROR), 0.0, {"error": 1, "cx_closed": 1}),
    ],
)
@pytest.mark.parametrize("at_once", [False, True])
def test_decisions(
    fields: dict[str, Any], decision: Decision, delay: float | None, counted: dict[str, int], at_once: bool
) -> None:
    async def main() -> None:
        service = Service(decision if at_once else None)
        filter = make(service, Worker(asyncio.get_running_loop()), **fields)
        info = ConnectionInfo(1, Address("10.0.0.9", 80), Address("10.0.0.1", 5000), 0.0)
        decided: list[float | None] = []
        filter.ask(info, decided.append)
        if not at_once:
            assert counts(filter) == {"total": 1, "active": 1}
            service.sinks[0].on_decision(decision)
        assert decided == [delay]
        assert counts(filter) == {"total": 1, **counted}

    run(main)


def test_metadata_is_there_for_the_log() -> None:
    async def main() -> None:
        service = Service(Decision(OK, dynamic_metadata={"a": 1}))
        filter = make(service, Worker(asyncio.get_running_loop()))
        info = ConnectionInfo(1, Address("10.0.0.9", 80), Address("10.0.0.1", 5000), 0.0)
        info.metadata = {"other": {}}
        filter.ask(info, lambda delay: None)
        assert info.metadata == {"other": {}, "envoy.filters.network.ratelimit": {"a": 1}}

    run(main)


def test_a_share_of_the_connections() -> None:
    async def main() -> None:
        filter = make(Service(), Worker(asyncio.get_running_loop()), enabled=(0, 100))
        assert filter.on_new_connection(ConnectionInfo(1, Address("::1", 80), Address("::1", 5), 0.0)) is None

    run(main)


class Heard:
    """A filter that hears of connections."""

    def __init__(self) -> None:
        self.new = self.closed = 0

    def on_new_connection(self, info: ConnectionInfo) -> float | None:
        self.new += 1
        return None

    def on_close(self, info: ConnectionInfo) -> None:
        self.closed += 1


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("outcome", [OK, OVER_LIMIT])
def test_a_connection_waits_unread_and_then_passes_or_is_closed(outcome: str, at_once: bool) -> None:
    async def main() -> None:
        worker = Worker(asyncio.get_running_loop())
        service = Service(Decision(outcome) if at_once else None)
        filter, before, behind = make(service, worker), Heard(), Heard()
        served = Served(config(), worker, build_filters=lambda chain, context: (before, filter, behind)).start()
        client = served.connect()
        client.sendall(b"ping")
        await until(lambda: service.asked)
        if not at_once:
            assert (served.stats.downstream_cx_active, behind.new) == (1, 0)
            service.sinks[0].on_decision(Decision(outcome))
        if outcome == OK:
            assert await in_thread(exchange, client, b"", 4) == b"ping"
        else:
            assert await in_thread(ended, client)
        client.close()
        await until(lambda: served.stats.downstream_cx_active == 0)
        passed = 1 if outcome == OK else 0
        assert (before.new, before.closed, behind.new, behind.closed) == (1, 1, passed, passed)
        served.listener.close()

    run(main)


def test_a_listener_that_closes_asks_no_longer() -> None:
    async def main() -> None:
        worker = Worker(asyncio.get_running_loop())
        service = Service()
        filter, before = make(service, worker), Heard()
        served = Served(config(), worker, build_filters=lambda chain, context: (before, filter)).start()
        client = served.connect()
        await until(lambda: service.asked)
        served.listener.close()
        assert await in_thread(ended, client)
        client.close()
        assert (service.cancelled, before.closed, counts(filter)) == (1, 1, {"total": 1})
        assert (served.stats.downstream_cx_active, served.listener.connections) == (0, set())

    run(main)


SERVICE = {"grpc_service": {"envoy_grpc": {"cluster_name": "a"}}}
DOCUMENT: dict[str, Any] = {
    "stat_prefix": "s",
    "domain": "d",
    "descriptors": [{"entries": [{"key": "k", "value": "%PROTOCOL%"}, {"key": "e"}]}],
    "rate_limit_service": SERVICE,
}


def test_configuration() -> None:
    assert build(TYPE, DOCUMENT, parse_network_rate_limit) == NetworkRateLimit(
        "s", "d", ((("k", "%PROTOCOL%"), ("e", "")),), GrpcService("a")
    )
    whole = {**DOCUMENT, "timeout": "1s", "failure_mode_deny": True}
    found = build(TYPE, whole, parse_network_rate_limit)
    assert (found.timeout, found.failure_mode_deny) == (1.0, True)


def test_what_has_no_effect_is_named() -> None:
    entry = {"entries": [{"key": "k"}], "hits_addend": 3, "limit": {"requests_per_unit": 1, "unit": "DAY"}}
    _, warnings = build_with_warnings(TYPE, {**DOCUMENT, "descriptors": [entry]}, parse_network_rate_limit)
    assert len(warnings) == 2 and "limit" in warnings[0] and "hits_addend" in warnings[1]


def test_a_shared_key_is_a_shared_bucket() -> None:
    async def main() -> None:
        worker = Worker(asyncio.get_running_loop())
        shared: SharedBuckets = {}
        bucket, other = TokenBucket(1, 1, 3600.0), TokenBucket(2, 1, 3600.0)
        filters = [
            LocalRateLimitFilter(
                LocalRateLimit("l", tokens, share_key=key), NetworkLocalRateLimitStats(), worker, shared
            )
            for key, tokens in (
                ("k", bucket),
                ("k", bucket),
                ("other", bucket),
                ("k", other),
                ("", bucket),
                ("", bucket),
            )
        ]
        info = ConnectionInfo(1, Address("::1", 80), Address("::1", 5), 0.0)
        assert [one.on_new_connection(info) for one in filters] == [None, 0.0, None, None, None, None]

    run(main)
