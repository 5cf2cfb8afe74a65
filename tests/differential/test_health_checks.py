"""Active health checks beside real Envoy: hosts with the same script end with the same flags, statistics and event log.

Every case is a cluster of one host with a script of its own; all of them run at once, in one proxy of each kind. A script's
last answer never comes, and the time limit of checks is long, so that everything stands still when it is reached.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.differential.blocks import Message, address
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.differential.proxies import ENVOY, FreePorts, Proxy, start, subject_kind
from tests.sidecar.bootstraps import bootstrap, http_listener, to_cluster
from tests.sidecar.pool.http2_services import Peer, serving_http2
from tests.sidecar.tls_bootstraps import originating, server_context
from tests.sidecar.transport.serving import trusted

SINK = "type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink"
TCP_PROXY = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
HTTP2 = {"http2_protocol_options": {}}
CLOSE, RESET = "close", "reset"
Step = bytes | str
PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Case:
    """A cluster and its host's script: what it says to each check, in order.

    ``holds``: after the last step no answer comes, so that counts can be compared. Otherwise the last step repeats, and only
    the beginning of the log is compared, ``lines`` of them.
    """

    name: str
    check: Message
    script: Sequence[Step] = ()
    kind: str = "http"
    cluster: Message = field(default_factory=dict)
    endpoint: Message = field(default_factory=dict)
    holds: bool = True
    lines: int = 6


def reply(status: int = 200, body: str = "ok", **fields: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{lines}\r\n{body}".encode()


def web(**fields: Any) -> Message:
    return {"http_health_check": {"path": "/health", **fields}}


def answer(*expected: str, send: str = "ping", **more: Any) -> Message:
    receive = [{"text": text.encode().hex()} for text in expected]
    return {"tcp_health_check": {"send": {"text": send.encode().hex()}, "receive": receive, **more}}


OK, DOWN = reply(), reply(503)
FAIL_NOW = {"x_envoy_immediate_health_check_fail": "1"}
SERVICE = {"x_envoy_upstream_healthchecked_cluster": "orders-7"}
ELSEWHERE = {"health_check_config": {"port_value": 1}}
TLS = originating({}, validation=trusted())
RAW = {
    "name": "raw",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
}
NOT_ASKED = {"health_check_config": {"disable_active_health_check": True}}

CASES = [
    Case("well", web(), [OK, OK]),
    Case("ill", web(), [DOWN, DOWN]),
    Case("up-and-down", web(), [OK, DOWN, OK, OK, DOWN, OK, DOWN, OK, OK]),
    Case("broken", web(), [OK, CLOSE, OK, CLOSE, RESET, OK, OK, RESET]),
    Case("retriable", web(retriable_statuses=[{"start": 500, "end": 504}]), [OK, DOWN, OK, DOWN, DOWN, OK, OK, reply(504)]),
    Case("expected", web(expected_statuses=[{"start": 200, "end": 300}, {"start": 503, "end": 504}]),
         [DOWN, reply(299), reply(300), DOWN, DOWN]),
    Case("degraded", web(), [reply(x_envoy_degraded="1"), OK, reply(x_envoy_degraded=""), DOWN, reply(x_envoy_degraded="1")]),
    Case("degraded-on-the-way", web(), [OK, DOWN, reply(x_envoy_degraded="1"), OK, OK, reply(x_envoy_degraded="1")]),
    Case("fails-now", web(), [OK, reply(503, **FAIL_NOW), OK, reply(200, **FAIL_NOW), reply(500, **FAIL_NOW)]),
    Case("receive", web(receive=[{"text": b"a".hex()}, {"text": b"b".hex()}]), [reply(body="xaxb"), reply(body="ba"),
         reply(503, "ab"), reply(body="ab"), reply(body="ab")]),
    Case("receive-fails-now", web(receive=[{"text": b"a".hex()}]), [reply(body="a"), reply(200, "b", **FAIL_NOW)]),
    Case("buffer", web(receive=[{"text": b"cd".hex()}], response_buffer_size=4), [reply(body="abcdef"), reply(body="abccd")]),
    Case("no-buffer", web(receive=[{"text": b"z".hex()}], response_buffer_size=0), [reply(body="a" * 5000 + "z")]),
    Case("service", web(service_name_matcher={"prefix": "orders"}), [reply(**SERVICE), OK, reply(503, **SERVICE)]),
    Case("close-after", web(), [reply(connection="close"), reply(connection="close"), OK]),
    Case("interim", web(), [b"HTTP/1.1 102 X\r\n\r\n" + OK, OK]),
    Case("chunked", web(receive=[{"text": b"ok".hex()}]),
         [b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"]),
    Case("garbage", web(), [b"what?\r\n\r\n", OK, b"HTTP/1.1 200 X\r\ncontent-length: x\r\n\r\n", OK]),
    Case("post", web(method="POST", send={"text": b"hello".hex()}, host="h.test"), [OK, OK]),
    Case("head", web(method="HEAD"), [b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n", OK[:-2]]),
    Case("fields", web(request_headers_to_add=[
        {"header": {"key": "x-host", "value": "%UPSTREAM_METADATA(envoy.lb:color)% %PROTOCOL%"}},
        {"header": {"key": "user-agent", "value": "me"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
        request_headers_to_remove=["x-none"]), [OK]),
    Case("no-agent", web(request_headers_to_remove=["user-agent"]), [OK]),
    Case("quiet", {**web(), "always_log_health_check_failures": False, "always_log_health_check_success": False},
         [OK, DOWN, DOWN, OK, OK, CLOSE, OK]),
    Case("one-is-enough", {**web(), "healthy_threshold": 1, "unhealthy_threshold": 1}, [OK, CLOSE, OK, DOWN, OK]),
    Case("fresh", {**web(), "reuse_connection": False}, [OK, OK, DOWN, OK]),
    Case("hostname", web(host="configured"), [OK], endpoint={"health_check_config": {"hostname": "own.test"}}),
    Case("not-asked", web(), [], endpoint=NOT_ASKED),
    Case("logical", web(), [DOWN, DOWN, OK, OK], cluster={"type": "LOGICAL_DNS"}),
    Case("strict", web(), [DOWN, OK, OK], cluster={"type": "STRICT_DNS"}),
    Case("http2-to-http1", web(codec_client_type="HTTP2"), [CLOSE], holds=False, lines=3),
    Case("refused", web(), kind="refused", holds=False, lines=3),
    Case("late", {**web(), "timeout": "0.5s"}, [OK, "hold"], holds=False, lines=5),
    Case("connects", {"tcp_health_check": {}}, kind="tcp", holds=False, lines=1),
    Case("connects-and-is-closed", {"tcp_health_check": {}}, [CLOSE], kind="tcp", holds=False, lines=1),
    Case("answers", answer("po", "ng"), [b"pong", b"ponk ng", b"po--ng", CLOSE, b"pong", CLOSE, CLOSE, b"pong"], kind="tcp"),
    Case("answers-late", {**answer("pong"), "timeout": "0.5s"}, [b"pong", b"pon"], kind="tcp", holds=False, lines=4),
    Case("answers-fresh", {**answer("pong"), "reuse_connection": False}, [b"pong", b"pong", CLOSE, b"pong"], kind="tcp"),
    Case("closes-afterwards", {**answer("pong"), "interval": "0.2s", "no_traffic_interval": "0.2s"},
         [b"pong!", b"pong!", b"pong"], kind="tcp"),
    Case("proxy-v1", answer("pong", proxy_protocol_config={"version": "V1"}), [b"pong", b"pong"], kind="tcp"),
    Case("proxy-v2", answer("pong", proxy_protocol_config={"version": "V2"}), [b"pong"], kind="tcp"),
    Case("grpc", {"grpc_health_check": {}}, ["1", "2", "1", "1", "3", "0", "1", "05", "1", "1"], kind="grpc",
         cluster=HTTP2),
    Case("grpc-service", {"grpc_health_check": {"service_name": "a.b", "authority": "h.test",
         "initial_metadata": [{"header": {"key": "x-a", "value": "b"}}]}}, ["1", "14", "", "1", "1"], kind="grpc",
         cluster=HTTP2),
    Case("elsewhere", web(), [OK, DOWN], endpoint=ELSEWHERE),
    Case("http2", web(codec_client_type="HTTP2"), ["200", "503", "204", "200", "200", "RESET", "200", "RESET", "RESET", "200"],
         kind="http2"),
    Case("http2-post", web(codec_client_type="HTTP2", method="PUT", send={"text": "6869"}), ["200", "200"], kind="http2"),
    Case("http2-going-away", web(codec_client_type="HTTP2"), ["200", "GOAWAY", "200", "GOAWAY", "200"], kind="http2"),
    Case("tls", web(), [OK, DOWN, CLOSE], kind="tls", cluster=TLS),
    Case("tls-protocols", {**web(), "tls_options": {"alpn_protocols": ["other", "http/1.1"]}}, [OK, OK], kind="tls",
         cluster=TLS),
    Case("tls-tcp", answer("pong"), [b"pong", CLOSE, b"pong"], kind="tls-tcp", cluster=TLS),
    Case("tls-to-plain", {**web(), "timeout": "0.2s"}, [OK], cluster=TLS, holds=False, lines=3),
    Case("tls-match", {**web(), "transport_socket_match_criteria": {"plain": True}}, [OK, DOWN], cluster={**TLS,
         "transport_socket_matches": [{"name": "plain", "match": {"plain": True}, "transport_socket": RAW}]}),
    Case("grpc-fresh", {"grpc_health_check": {}, "reuse_connection": False}, ["1", "2", "1"], kind="grpc", cluster=HTTP2),
]  # fmt: skip
NAMES = [case.name for case in CASES]
DIFFERENT = {
    "degraded": ["health_check.degraded"],
    "degraded-on-the-way": ["health_check.degraded"],
    "grpc-fresh": ["upstream_cx_protocol_error"],
}
"""Statistics that are meant to differ: docs/differences-from-envoy.md says why."""


class Host:
    """The host of one case, for one proxy: follows the script and remembers what it was asked."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.port = 0
        self.served_at = 0  # where it serves, if that is another one
        self.asked: list[str] = []

    def next_step(self) -> Step:
        """What the script says to the next check."""
        at = len(self.asked) - 1
        script = self.case.script
        if at < len(script):
            return script[at]
        return "hold" if self.case.holds or not script else script[-1]

    @property
    def finished(self) -> bool:
        return len(self.asked) > len(self.case.script)

    async def serve_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        secure = writer.get_extra_info("ssl_object")
        agreed = "" if secure is None else f"{secure.selected_alpn_protocol()} "
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                self.asked.append(agreed + (head + body).decode("latin-1"))
                if not await self._follow(writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.case.script[:1] == [CLOSE] and len(self.case.script) == 1:
                writer.close()
                return
            while True:
                data = await reader.read(1000)
                if not data:
                    raise ConnectionResetError
                self.asked.append(re.sub(r"\d{4,5}", "PORT", data.decode("latin-1")))
                if not await self._follow(writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _follow(self, writer: asyncio.StreamWriter) -> bool:
        step = self.next_step()
        if isinstance(step, bytes):
            writer.write(step)
            if step.endswith(b"!"):
                await asyncio.sleep(0.02)
                writer.close()
                return False
            return True
        if step == RESET:
            writer.transport.abort()
        elif step == CLOSE:
            writer.close()
        return step == "hold"

    def answer_http2(self, peer: Peer, stream: int, head: dict[bytes, bytes]) -> None:
        self.asked.append(str(sorted(head.items())))
        step = self.next_step()
        if step == "RESET":
            peer.codec.reset_stream(stream, 2)
        elif step == "GOAWAY":
            peer.reply(stream, ("x", "y"))
            peer.codec.close_connection()
        elif step != "hold":
            assert isinstance(step, str)
            peer.reply(stream, ("x", "y"), status=int(step))

    def answer_grpc(self, peer: Peer, stream: int, head: dict[bytes, bytes]) -> None:
        """`grpc.health.v1.Health/Check`: one digit is the status of the service, a longer number that of the call."""
        self.asked.append(str(sorted(head.items())))
        step = self.next_step()
        assert isinstance(step, str)
        if step == "hold":
            return
        content_type = ("content-type", "application/grpc")
        if len(step) > 1:
            peer.reply(stream, content_type, ("grpc-status", step))
            return
        peer.reply(stream, content_type, end=False)
        message = b"\x08" + bytes([int(step)]) if step else b""
        peer.codec.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message)
        peer.codec.send_headers(stream, [("grpc-status", "0")], end_stream=True)


@asynccontextmanager
async def serving(host: Host, ports: FreePorts, directory: Path) -> AsyncIterator[None]:
    kind = host.case.kind
    if kind == "refused":
        host.port = ports.take()
        yield
    elif kind in ("http2", "grpc"):
        async with serving_http2(host.answer_grpc if kind == "grpc" else host.answer_http2) as (host.port, _):
            yield
    else:
        serve = host.serve_tcp if kind.endswith("tcp") else host.serve_http
        context = None
        if kind.startswith("tls"):
            context = server_context(directory)
            context.set_alpn_protocols(["other", "http/1.1", "h2"])
        listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        host.port = listening.sockets[0].getsockname()[1]
        if host.case.endpoint is ELSEWHERE:
            host.served_at, host.port = host.port, ports.take()
        try:
            yield
        finally:
            listening.close()


def configuration(hosts: Sequence[Host], admin: int, listener: int, directory: Path) -> Message:
    clusters = []
    for host in hosts:
        case = host.case
        check = {
            "timeout": "60s",
            "interval": "0.03s",
            "no_traffic_interval": "0.03s",
            "unhealthy_threshold": 2,
            "healthy_threshold": 2,
            "always_log_health_check_failures": True,
            "always_log_health_check_success": True,
            **case.check,
            "event_logger": [
                {"name": "file", "typed_config": {"@type": SINK, "event_log_path": str(directory / f"{case.name}.log")}}
            ],
        }
        elsewhere = {"health_check_config": {"port_value": host.served_at}} if host.served_at else case.endpoint
        endpoint = {"endpoint": {"address": address(host.port), **elsewhere}}
        metadata = {"filter_metadata": {"envoy.lb": {"color": "blue"}}}
        group = {"lb_endpoints": [{**endpoint, "metadata": metadata}], "locality": {"region": "r", "zone": "z"}}
        clusters.append(
            {
                "name": case.name,
                "connect_timeout": "1s",
                "load_assignment": {"cluster_name": case.name, "endpoints": [group]},
                "health_checks": [check],
                **case.cluster,
            }
        )
    return bootstrap(http_listener("one", listener, []), clusters=tuple(clusters), admin=admin)


@dataclass(slots=True)
class Seen:
    """What one proxy made of one case."""

    events: list[dict[str, Any]]
    statistics: dict[str, str]
    flags: list[str]
    asked: list[str]


def watch(kind: str, directory: Path) -> dict[str, Seen]:
    """Run all cases on one proxy."""

    async def main() -> dict[str, Seen]:
        ports = FreePorts()
        hosts = [Host(case) for case in CASES]
        admin, listener = ports.take(), ports.take()
        async with AsyncExitStack() as stack:
            for host in hosts:
                await stack.enter_async_context(serving(host, ports, directory))
            config = configuration(hosts, admin, listener, directory)
            proxy = await asyncio.to_thread(start, kind, config, {"admin": admin}, directory)
            try:
                return await observe(proxy, hosts, directory)
            finally:
                await asyncio.to_thread(proxy.stop)

    return asyncio.run(main())


async def observe(proxy: Proxy, hosts: Sequence[Host], directory: Path) -> dict[str, Seen]:
    def events(host: Host) -> list[dict[str, Any]]:
        path = directory / f"{host.case.name}.log"
        text = path.read_text() if path.exists() else ""
        return [comparable(line, host) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def complete(host: Host) -> bool:
        if host.case.name == "not-asked":
            return True
        return host.finished if host.case.holds else len(events(host)) >= host.case.lines

    until = time.monotonic() + PATIENCE
    while not all(map(complete, hosts)) and time.monotonic() < until:
        await asyncio.sleep(0.05)
    unfinished = [f"{host.case.name} {len(host.asked)}" for host in hosts if not complete(host)]
    assert not unfinished, f"{proxy.kind}: {unfinished}\n{proxy.log()}"
    await asyncio.sleep(1.2)  # until the logs are written
    lines = (await asyncio.to_thread(proxy.admin, "/clusters"))[2].splitlines()
    numbers = (await asyncio.to_thread(proxy.admin, "/stats"))[2].splitlines()
    found = {}
    for host in hosts:
        name = host.case.name
        wanted = (f"cluster.{name}.health_check.", f"cluster.{name}.membership_", f"cluster.{name}.upstream_")
        statistics = dict(line.split(": ") for line in numbers if line.startswith(wanted) and "ms" not in line)
        flags = [
            line.rpartition("::")[2] for line in lines if line.startswith(f"{name}::") and "::health_flags::" in line
        ]
        found[name] = Seen(events(host), statistics, flags, host.asked)
    return found


def comparable(line: str, host: Host) -> dict[str, Any]:
    """A line of the event log without what rightly varies; the order of its members is looked at."""
    event = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", event["timestamp"])
    event["timestamp"] = "time"
    assert event["host"]["socket_address"]["port_value"] == host.port
    event["host"]["socket_address"]["port_value"] = "port"
    event["order"] = list(event)
    return event  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Seen], dict[str, Seen]]:
    """What Envoy and the subject made of all cases."""
    try:
        envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(str(error))
    seen = [
        watch(kind, tmp_path_factory.mktemp(name)) for name, kind in (("envoy", ENVOY), ("subject", subject_kind()))
    ]
    return seen[0], seen[1]


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_same_events(both: tuple[dict[str, Seen], dict[str, Seen]], case: Case) -> None:
    theirs, ours = both[0][case.name].events, both[1][case.name].events
    if not case.holds:
        theirs, ours = theirs[: case.lines], ours[: case.lines]
    assert ours == theirs
    assert theirs or case.name == "not-asked"


@pytest.mark.parametrize("case", [case for case in CASES if case.holds], ids=lambda case: case.name)
def test_the_same_statistics_and_flags(both: tuple[dict[str, Seen], dict[str, Seen]], case: Case) -> None:
    theirs, ours = both[0][case.name], both[1][case.name]
    assert ours.flags == theirs.flags
    known = [f"cluster.{case.name}.{statistic}" for statistic in DIFFERENT.get(case.name, ())]
    wanted = {name: value for name, value in theirs.statistics.items() if name not in known}
    assert {name: ours.statistics.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_same_was_asked(both: tuple[dict[str, Seen], dict[str, Seen]], case: Case) -> None:
    theirs, ours = both[0][case.name].asked, both[1][case.name].asked
    least = len(case.script) + 1 if case.holds else min(len(theirs), len(ours))
    assert ours[:least] == theirs[:least]


def test_the_count_of_degraded_hosts_goes_down_again(both: tuple[dict[str, Seen], dict[str, Seen]]) -> None:
    """Envoy's only goes up: see docs/differences-from-envoy.md."""
    name = "cluster.degraded.health_check.degraded"
    assert (both[0]["degraded"].statistics[name], both[1]["degraded"].statistics[name]) == ("2", "1")


# what becomes of requests


class Web:
    """A host whose checks and requests are answered as is said, and that counts the latter."""

    def __init__(self) -> None:
        self.well = True
        self.status = 200
        self.fields = ""
        self.requests = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                checked = b"/health" in head
                self.requests += not checked
                status = (200 if self.well else 503) if checked else self.status
                fields = "" if checked else self.fields
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 2\r\n{fields}\r\nok".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def webs(count: int) -> AsyncIterator[list[Web]]:
    async with AsyncExitStack() as stack:
        made = [Web() for _ in range(count)]
        for host in made:
            server = await asyncio.start_server(host.serve, "127.0.0.1", 0)
            stack.callback(server.close)
            host.port = server.sockets[0].getsockname()[1]
        yield made


class Mesh:
    """A proxy of either kind, with one cluster of checked hosts, and its client."""

    def __init__(self, proxy: Proxy, port: int) -> None:
        self.proxy = proxy
        self.port = port

    async def ask(self, times: int = 1) -> list[tuple[int, list[str]]]:
        """Statuses, and the names of what in the response has to do with health."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answers = []
        for _ in range(times):
            writer.write(b"GET /request HTTP/1.1\r\nhost: a\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))  # type: ignore[index]
            names = [line.partition(":")[0] for line in head.decode().lower().splitlines()]
            answers.append((int(head.split()[1]), [name for name in names if "health" in name or "degraded" in name]))
        writer.close()
        return answers

    async def flags(self) -> list[str]:
        lines = (await asyncio.to_thread(self.proxy.admin, "/clusters"))[2].splitlines()
        return [line.rpartition("::")[2] for line in lines if "::health_flags::" in line]

    async def become(self, *flags: str) -> None:
        """Wait until the hosts have these flags, and are picked by them."""
        until = time.monotonic() + PATIENCE
        while await self.flags() != list(flags):
            assert time.monotonic() < until, await self.flags()
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.05 if self.proxy.kind != ENVOY else 1.1)  # Envoy's `update_merge_window`

    async def counted(self, *leaves: str) -> list[str]:
        lines = (await asyncio.to_thread(self.proxy.admin, "/stats"))[2].splitlines()
        found = dict(line.split(": ") for line in lines if line.startswith("cluster.up."))
        return [found[f"cluster.up.{leaf}"] for leaf in leaves]


@asynccontextmanager
async def mesh(kind: str, directory: Path, hosts: Sequence[Web], check: Message, **cluster: Any) -> AsyncIterator[Mesh]:
    ports = FreePorts()
    admin, port = ports.take(), ports.take()
    settings = {
        "timeout": "1s",
        "interval": "0.05s",
        "no_traffic_interval": "0.05s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        **web(),
        **check,
    }
    endpoints = [{"endpoint": {"address": address(one.port)}} for one in hosts]
    made = {
        "name": "up",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": endpoints}]},
        "health_checks": [settings],
        **cluster,
    }
    config = bootstrap(http_listener("one", port, [to_cluster("up")]), clusters=(made,), admin=admin)
    proxy = await asyncio.to_thread(start, kind, config, {"admin": admin}, directory)
    try:
        yield Mesh(proxy, port)
    finally:
        await asyncio.to_thread(proxy.stop)


@pytest.fixture(params=["envoy", "subject"])
def kind(request: pytest.FixtureRequest) -> str:
    """Both kinds of proxies must pass: what is expected is what Envoy does."""
    try:
        envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(str(error))
    return ENVOY if request.param == "envoy" else subject_kind()


ILL = "/failed_active_hc"
OUT = "/failed_active_hc/excluded_via_immediate_hc_fail"
EJECTED = "/failed_outlier_check"


def test_traffic_goes_to_hosts_that_are_well_and_to_all_in_panic(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with webs(4) as hosts, mesh(kind, tmp_path, hosts, {}) as proxy:
            await proxy.become(*["healthy"] * 4)
            await proxy.ask(12)
            assert [host.requests for host in hosts] == [3, 3, 3, 3]
            hosts[0].well = hosts[2].well = False
            await proxy.become(ILL, "healthy", ILL, "healthy")
            await proxy.ask(12)
            assert [host.requests for host in hosts] == [3, 9, 3, 9]
            assert await proxy.counted("lb_healthy_panic", "membership_healthy", "membership_total") == ["0", "2", "4"]
            hosts[1].well = False
            await proxy.become(ILL, ILL, ILL, "healthy")
            await proxy.ask(12)
            assert [host.requests for host in hosts] == [6, 12, 6, 12]
            assert await proxy.counted("lb_healthy_panic") == ["12"]
            hosts[0].well = hosts[1].well = hosts[2].well = True
            await proxy.become(*["healthy"] * 4)

    asyncio.run(main())


def test_no_answer_is_better_where_panic_is_switched_off(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        common = {"healthy_panic_threshold": {"value": 0}}
        async with webs(2) as hosts, mesh(kind, tmp_path, hosts, {}, common_lb_config=common) as proxy:
            hosts[0].well = hosts[1].well = False
            await proxy.become(ILL, ILL)
            assert await proxy.ask() == [(503, [])]
            assert await proxy.counted("upstream_cx_none_healthy") == ["1"]

    asyncio.run(main())


def test_a_response_takes_its_host_out_which_is_no_reason_to_panic(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        rarely = {"interval": "60s", "no_traffic_interval": "60s"}
        async with webs(3) as hosts, mesh(kind, tmp_path, hosts, rarely) as proxy:
            await proxy.become(*["healthy"] * 3)
            await proxy.ask(30)
            hosts[0].fields = hosts[1].fields = "x-envoy-immediate-health-check-fail: true\r\n"
            seen = []
            for _ in range(200):
                if (await proxy.flags()).count(OUT) == 2:
                    break
                seen += await proxy.ask()
                await asyncio.sleep(0.05)
            assert [names for _, names in seen if names] == [["x-envoy-immediate-health-check-fail"]] * 2
            await proxy.become(OUT, OUT, "healthy")
            before = [host.requests for host in hosts]
            await proxy.ask(6)
            assert [host.requests for host in hosts] == [before[0], before[1], before[2] + 6]
            leaves = ("health_check.passive_failure", "membership_excluded", "membership_healthy", "lb_healthy_panic")
            assert await proxy.counted(*leaves) == ["2", "2", "1", "0"]

    asyncio.run(main())


@pytest.mark.parametrize("comes_back", [True, False])
def test_an_ejected_host_whose_check_succeeds_comes_back(kind: str, tmp_path: Path, comes_back: bool) -> None:
    async def main() -> None:
        detection = {
            "consecutive_5xx": 2,
            "enforcing_consecutive_5xx": 100,
            "base_ejection_time": "300s",
            "max_ejection_percent": 100,
            "enforcing_success_rate": 0,
            "successful_active_health_check_uneject_host": comes_back,
        }
        often = {"interval": "0.4s", "no_traffic_interval": "0.4s"}
        async with webs(1) as hosts, mesh(kind, tmp_path, hosts, often, outlier_detection=detection) as proxy:
            await proxy.become("healthy")
            hosts[0].status = 500
            await proxy.ask(2)
            await proxy.become(EJECTED)
            if comes_back:
                await proxy.become("healthy")
            else:
                before = int((await proxy.counted("health_check.success"))[0])
                while int((await proxy.counted("health_check.success"))[0]) < before + 2:
                    await asyncio.sleep(0.05)
                assert await proxy.flags() == [EJECTED]
            assert await proxy.counted("outlier_detection.ejections_enforced_total") == ["1"]

    asyncio.run(main())


@pytest.mark.parametrize("closes", [True, False])
def test_connections_of_a_tcp_proxy_when_their_host_fails(kind: str, tmp_path: Path, closes: bool) -> None:
    async def main() -> None:
        ports = FreePorts()
        admin, port = ports.take(), ports.take()

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        echoing = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with webs(1) as (host,):
            endpoint = {"address": address(echoing.sockets[0].getsockname()[1])}
            asked_at = {"health_check_config": {"port_value": host.port}}
            check = {"timeout": "1s", "interval": "0.05s", "unhealthy_threshold": 1, "healthy_threshold": 1, **web()}
            made = {
                "name": "up",
                "load_assignment": {
                    "cluster_name": "up",
                    "endpoints": [{"lb_endpoints": [{"endpoint": endpoint | asked_at}]}],
                },
                "health_checks": [{**check, "no_traffic_interval": "0.05s"}],
                "close_connections_on_host_health_failure": closes,
            }
            proxied = {"@type": TCP_PROXY, "stat_prefix": "tcp", "cluster": "up"}
            chain = {"filters": [{"name": "tcp", "typed_config": proxied}]}
            listener = {"name": "one", "address": address(port), "filter_chains": [chain]}
            config = bootstrap(listener, clusters=(made,), admin=admin)
            proxy = await asyncio.to_thread(start, kind, config, {"admin": admin}, tmp_path)
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"hello")
                assert await reader.read(100) == b"hello"
                host.well = False
                await Mesh(proxy, port).become(ILL)
                if closes:
                    assert await reader.read() == b""
                else:
                    writer.write(b"again")
                    assert await reader.read(100) == b"again"
                leaves = ("upstream_cx_destroy_local_with_active_rq", "upstream_cx_active")
                assert await Mesh(proxy, port).counted(*leaves) == (["1", "0"] if closes else ["0", "1"])
                writer.close()
            finally:
                await asyncio.to_thread(proxy.stop)
        echoing.close()

    asyncio.run(main())
