"""Upgrades, tunnels, trailers, header case, mirrors, retries and limits, over real sockets; gauges return to 0."""

from __future__ import annotations

import asyncio

import pytest

from tests.hostile.surroundings import GET, HELLO, Peer, eventually, sidecar

WEBSOCKET = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
ENABLED = {"upgrade_configs": [{"upgrade_type": "websocket"}]}


def retrying(**policy: object) -> list[dict[str, object]]:
    settings = {"num_retries": 3, "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.01s"}, **policy}
    return [{"match": {"prefix": "/"}, "route": {"cluster": "up", "retry_policy": settings}}]


@pytest.mark.parametrize("first", ["client", "upstream"])
@pytest.mark.parametrize("early", [b"", b"\x81\x05GET /"])
async def test_websocket_frames_pass_as_bytes_both_ways(first: str, early: bytes) -> None:
    async def upstream(peer: Peer) -> None:
        head = await peer.until(b"\r\n\r\n")
        assert b"\r\nupgrade: websocket\r\n" in head and b"\r\nconnection: Upgrade\r\n" in head
        assert not peer.read, "bytes of the tunnel before there is one"
        await asyncio.sleep(0.02)
        assert peer.read == b""
        await peer.send(SWITCH + b"\x81\x02hi")
        assert await peer.exactly(len(early)) == early
        while data := await peer.receive():
            await peer.send(data[::-1])
            if data == b"bye":
                return

    async with sidecar(upstream, manager=ENABLED) as setting:
        client = await setting.client()
        await client.send(WEBSOCKET + early)
        head = await client.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ") and b"\r\nupgrade: websocket\r\n" in head
        assert b"transfer-encoding" not in head and b"content-length" not in head
        assert await client.exactly(4) == b"\x81\x02hi"
        for frame in (b"\x81\x00", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 100):
            await client.send(frame)
            got = await client.exactly(len(frame))
            assert sorted(got) == sorted(frame)
        if first == "upstream":
            await client.send(b"bye")
            assert await client.rest() == b"eyb"
        client.close()
        await setting.at_rest()
        await eventually(lambda: setting.stat("cluster.up.upstream_cx_active") == 0)


async def test_a_host_that_ignores_an_upgrade_never_sees_what_follows() -> None:
    seen = b""

    async def upstream(peer: Peer) -> None:
        nonlocal seen
        await peer.until(b"\r\n\r\n")
        await peer.send(HELLO)
        seen = await peer.rest()

    async with sidecar(upstream, manager=ENABLED) as setting:
        answer = await setting.exchange(WEBSOCKET + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.count(b"HTTP/1.1 ") == 1 and answer.endswith(
            b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        await setting.at_rest()
        await eventually(lambda: setting.stat("cluster.up.upstream_cx_active") == 0)
        assert seen == b""


async def test_a_connect_tunnel() -> None:
    async def upstream(peer: Peer) -> None:
        head = await peer.until(b"\r\n\r\n")
        assert head.startswith(b"CONNECT a.example:443 HTTP/1.1\r\n") and not peer.read
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while data := await peer.receive():
            await peer.send(data.upper())

    routes = [
        {"match": {"connect_matcher": {}}, "route": {"cluster": "up", "upgrade_configs": [{"upgrade_type": "CONNECT"}]}}
    ]
    manager = {"upgrade_configs": [{"upgrade_type": "CONNECT"}]}
    async with sidecar(upstream, routes=routes, manager=manager) as setting:
        client = await setting.client()
        await client.send(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\nearly ")
        head = await client.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        await client.send(b"late")
        assert await client.exactly(10) == b"EARLY LATE"
        client.close()


async def test_a_host_that_speaks_first_is_heard_through_a_tunnel_only() -> None:
    async def upstream(peer: Peer) -> None:
        await peer.send(b"220 ready\r\n")
        await peer.rest()

    upgrade = {"upgrade_type": "CONNECT", "connect_config": {}}
    routes = [
        {"match": {"connect_matcher": {}}, "route": {"cluster": "up", "upgrade_configs": [upgrade]}},
        {"match": {"prefix": "/"}, "route": {"cluster": "up"}},
    ]
    async with sidecar(upstream, routes=routes, manager={"upgrade_configs": [{"upgrade_type": "CONNECT"}]}) as setting:
        for _ in range(20):
            client = await setting.client()
            await client.send(b"CONNECT a.example:25 HTTP/1.1\r\n\r\n")
            assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert await client.exactly(11) == b"220 ready\r\n"
            client.close()
            client = await setting.client()
            await client.send(GET)
            head, body = await client.message()
            assert head.startswith(b"HTTP/1.1 50") and b"220" not in body
            client.close()


@pytest.mark.parametrize("enabled", [True, False])
async def test_trailers(enabled: bool) -> None:
    seen = b""
    request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"

    async def upstream(peer: Peer) -> None:
        nonlocal seen
        await peer.until(b"\r\n\r\n")
        seen = await peer.until(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nY-Sum: 2\r\n\r\n")
        await peer.rest()

    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http_protocol_options": {"enable_trailers": enabled}},
    }
    cluster = {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}}
    manager = {"http_protocol_options": {"enable_trailers": enabled}}
    async with sidecar(upstream, manager=manager, cluster=cluster) as setting:
        client = await setting.client()
        await client.send(request)
        await client.until(b"\r\n\r\n")
        body = await client.until(b"\r\n\r\n")
        assert seen == (b"2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n" if enabled else b"2\r\nhi\r\n0\r\n\r\n")
        assert body == (b"2\r\nhi\r\n0\r\ny-sum: 2\r\n\r\n" if enabled else b"2\r\nhi\r\n0\r\n\r\n")
        client.close()


async def test_header_case_is_preserved() -> None:
    seen = b""
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    formatter = {
        "stateful_formatter": {
            "name": "preserve_case",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3"
                ".PreserveCaseFormatterConfig"
            },
        }
    }
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http_protocol_options": {"header_key_format": formatter}},
    }

    async def upstream(peer: Peer) -> None:
        nonlocal seen
        seen = await peer.until(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 200 OK\r\nX-OdD: 1\r\nContent-LENGTH: 0\r\n\r\n")
        await peer.rest()

    async with sidecar(
        upstream,
        manager={"http_protocol_options": {"header_key_format": formatter}},
        cluster={"typed_extension_protocol_options": {name: options}},
    ) as setting:
        client = await setting.client()
        await client.send(b"GET / HTTP/1.1\r\nHOST: a\r\nX-My-ID: 1\r\n\r\n")
        head = await client.until(b"\r\n\r\n")
        assert b"\r\nHOST: a\r\n" in seen and b"\r\nX-My-ID: 1\r\n" in seen
        assert b"\r\nX-OdD: 1\r\n" in head and b"\r\nContent-LENGTH: 0\r\n" in head
        client.close()


async def test_mirrors_get_the_whole_request_and_their_answers_are_dropped() -> None:
    mirrored: list[tuple[bytes, bytes]] = []

    async def mirror(peer: Peer) -> None:
        while True:
            mirrored.append(await peer.message())
            await peer.send(b"HTTP/1.1 500 Odd\r\nContent-Length: 3\r\n\r\nbad")

    action = {"cluster": "up", "request_mirror_policies": [{"cluster": "mirror"}]}
    routes = [{"match": {"prefix": "/"}, "route": action}]
    async with sidecar(others={"mirror": mirror}, routes=routes) as setting:
        client = await setting.client()
        for _ in range(3):
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nworld")
            assert (await client.message())[1] == b"hello"
        await eventually(lambda: len(mirrored) == 3)
        assert all(body == b"world" and b"\r\nhost: a-shadow\r\n" in head for head, body in mirrored)
        await eventually(lambda: setting.stat("cluster.mirror.upstream_rq_active") == 0)
        client.close()


@pytest.mark.parametrize("chunked", [False, True])
async def test_retries_send_the_body_again(chunked: bool) -> None:
    bodies: list[bytes] = []

    async def upstream(peer: Peer) -> None:
        while True:
            _, body = await peer.message()
            bodies.append(body)
            await peer.send(HELLO if len(bodies) == 3 else b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    async with sidecar(upstream, routes=retrying(retry_on="5xx")) as setting:
        client = await setting.client()
        body = b"x" * 10_000
        framing = b"Content-Length: 10000\r\n\r\n" + body
        if chunked:
            framing = b"Transfer-Encoding: chunked\r\n\r\n2710\r\n" + body + b"\r\n0\r\n\r\n"
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing)
        assert (await client.message())[1] == b"hello"
        assert bodies == [body] * 3
        assert setting.stat("cluster.up.upstream_rq_retry") == 2
        client.close()


async def test_a_body_over_the_buffer_limit_is_sent_once() -> None:
    requests = 0

    async def upstream(peer: Peer) -> None:
        nonlocal requests
        while True:
            _, body = await peer.message()
            assert body == b"x" * 300_000
            requests += 1
            await peer.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    async with sidecar(
        upstream, routes=retrying(retry_on="5xx"), listener={"per_connection_buffer_limit_bytes": 65536}
    ) as setting:
        client = await setting.client()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n")
        for _ in range(30):
            await client.send(b"x" * 10_000)
            await asyncio.sleep(0.001)
        head, _ = await client.message()
        assert head.startswith(b"HTTP/1.1 503 ") and requests == 1
        assert setting.stat("cluster.up.retry_or_shadow_abandoned") == 1
        client.close()


async def test_a_large_body_for_a_connection_that_is_not_there_yet() -> None:
    async def upstream(peer: Peer) -> None:
        _, body = await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n%08d" % len(body))
        await peer.rest()

    async with sidecar(upstream, listener={"per_connection_buffer_limit_bytes": 32768}) as setting:
        client = await setting.client()
        size = 4 << 20
        sending = asyncio.create_task(
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        )
        assert (await client.message())[1] == b"%08d" % size
        await sending
        assert setting.stat("cluster.up.retry_or_shadow_abandoned") == 0
        client.close()


async def test_back_off_ends_with_its_client() -> None:
    async def upstream(peer: Peer) -> None:
        while True:
            await peer.message()
            await peer.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    routes = retrying(retry_on="5xx", retry_back_off={"base_interval": "10s", "max_interval": "10s"})
    async with sidecar(upstream, routes=routes) as setting:
        client = await setting.client()
        await client.send(GET)
        await eventually(lambda: setting.stat("cluster.up.upstream_rq_retry") == 1)
        client.close()
        await setting.at_rest()
        assert setting.stat("cluster.up.upstream_rq_total") == 1


def limited(**thresholds: int) -> dict[str, object]:
    return {"circuit_breakers": {"thresholds": [thresholds]}}


@pytest.mark.parametrize(
    ("thresholds", "overflow"),
    [
        ({"max_requests": 2}, "cluster.up.upstream_rq_active_overflow"),
        ({"max_connections": 1, "max_pending_requests": 1}, "cluster.up.upstream_rq_pending_overflow"),
    ],
)
async def test_circuit_breakers(thresholds: dict[str, int], overflow: str) -> None:
    go_on = asyncio.Event()

    async def upstream(peer: Peer) -> None:
        while True:
            await peer.message()
            await go_on.wait()
            await peer.send(HELLO)

    async with sidecar(upstream, cluster=limited(**thresholds)) as setting:
        clients = [await setting.client() for _ in range(6)]
        for at, client in enumerate(clients):
            await client.send(GET)
            await eventually(lambda at=at: setting.stat("http.in.downstream_rq_total") == at + 1)  # type: ignore[misc]
        await eventually(lambda: setting.stat(overflow) == 4)
        go_on.set()
        answers = [(await client.message())[0] for client in clients]
        assert [head.split(b" ")[1] for head in answers] == [b"200"] * 2 + [b"503"] * 4
        assert all(b"\r\nx-envoy-overloaded: true\r\n" in head for head in answers[2:])
        for client in clients:
            client.close()


async def test_requests_wait_for_the_one_connection_that_is_allowed() -> None:
    async with sidecar(cluster=limited(max_connections=1)) as setting:
        clients = [await setting.client() for _ in range(20)]
        for client in clients:
            await client.send(GET)
        for client in clients:
            assert (await client.message())[1] == b"hello"
            client.close()
        assert setting.stat("cluster.up.upstream_cx_total") == 1


async def test_a_client_that_leaves_while_its_request_waits() -> None:
    go_on = asyncio.Event()

    async def upstream(peer: Peer) -> None:
        while True:
            await peer.message()
            await go_on.wait()
            await peer.send(HELLO)

    async with sidecar(upstream, cluster=limited(max_connections=1)) as setting:
        first, second = await setting.client(), await setting.client()
        await first.send(GET)
        await second.send(GET)
        await eventually(lambda: setting.stat("cluster.up.upstream_rq_pending_active") == 1)
        second.reset()
        await eventually(lambda: setting.stat("cluster.up.upstream_rq_pending_active") == 0)
        go_on.set()
        assert (await first.message())[1] == b"hello"
        first.close()


async def test_connections_of_limited_use() -> None:
    cluster = {"common_http_protocol_options": {"max_requests_per_connection": 2}}
    options = {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
               "explicit_http_config": {"http_protocol_options": {}}, **cluster}  # fmt: skip
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    async with sidecar(cluster={"typed_extension_protocol_options": {name: options}}) as setting:
        client = await setting.client()
        for _ in range(6):
            await client.send(GET)
            assert (await client.message())[1] == b"hello"
        assert setting.stat("cluster.up.upstream_cx_total") == 3
        client.close()


async def test_the_longest_duration_of_a_connection() -> None:
    manager = {"common_http_protocol_options": {"max_connection_duration": "0.2s"}}
    async with sidecar(manager=manager) as setting:
        client = await setting.client()
        answered = 0
        while True:
            try:
                await client.send(GET)
                head, _ = await client.message()
            except (EOFError, ConnectionError):
                break
            answered += 1
            if b"\r\nconnection: close\r\n" in head:
                break
            await asyncio.sleep(0.01)
        assert 2 < answered < 100
        client.close()


@pytest.mark.parametrize("delay", ["0s", "0.2s"])
async def test_a_last_response_that_nobody_reads_does_not_keep_the_connection(delay: str) -> None:
    async def upstream(peer: Peer) -> None:
        await peer.message()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 800000\r\n\r\n" + b"x" * 800_000)
        await peer.rest()

    async with sidecar(upstream, manager={"delayed_close_timeout": delay}) as setting:
        client = await setting.client(receive_buffer=4096)
        await client.send(GET[:-2] + b"Connection: close\r\n\r\n")
        await setting.at_rest()
        client.close()
