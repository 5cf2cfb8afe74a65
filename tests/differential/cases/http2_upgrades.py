"""WebSocket and CONNECT over HTTP/2: extended CONNECT to either version, Upgrade to HTTP/2, and what is refused."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, cluster, listener, manager, route, to
from tests.differential.case import (
    Abort,
    AwaitBytes,
    AwaitClose,
    AwaitResponses,
    AwaitUpstream,
    Close,
    Finish,
    ReadUntil,
    Reply,
    Send,
    Tunnel,
    reply,
    request,
)
from tests.differential.http2_case import Http2Table, http2_cluster
from tests.differential.http2_frames import FieldLine, data, headers, reset
from tests.differential.http2_steps import AwaitData, AwaitHead, Body, Head, ResetStream
from tests.differential.http2_upstream import answer


def upgrades(site: Site) -> Message:
    websocket: Message = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
    connect: Message = {"upgrade_configs": [{"upgrade_type": "CONNECT"}]}
    allow: Message = {"http2_protocol_options": {"allow_connect": True}, "delayed_close_timeout": "0.02s"}
    by_route = [
        route("/off", to("a", upgrade_configs=[{"upgrade_type": "websocket", "enabled": False}])),
        route("/two", "two"),
        route("/plain-two", "plain-two"),
        route("/"),
    ]
    to_tcp = {"route": {"cluster": "tcp", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}}
    terminated = [route({"connect_matcher": {}}, to_tcp), route("/", "two")]
    proxied = [route({"connect_matcher": {}}, "two"), route("/", "two")]
    down = [route({"connect_matcher": {}}), route("/")]
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, by_route, **allow, **websocket)),
            listener(site, "not-allowed", manager(site, by_route, **websocket)),
            listener(site, "not-configured", manager(site, by_route, **allow)),
            listener(site, "connect", manager(site, terminated, **allow, **connect)),
            listener(site, "connect-two", manager(site, proxied, **allow, **connect)),
            listener(site, "connect-down", manager(site, down, **allow, **connect)),
        ],
        [
            cluster(site, "tcp"),
            http2_cluster(site, "two", options={"allow_connect": True}),
            http2_cluster(site, "plain-two"),
        ],
    )


BOOTSTRAPS = {"http2-upgrades": upgrades}

table = Http2Table("http2-upgrades", "http2-upgrades")
CASES = table.cases

ALLOWED = {0x8: 1}
SWITCH = Reply((b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n", Tunnel()))
ACCEPT = Reply((Head([(":status", "200")]), Tunnel()))


def extended(path: str, *fields: FieldLine, protocol: str = "websocket", method: str = "CONNECT") -> list[FieldLine]:
    """The head of an extended CONNECT."""
    pseudo = [
        (":method", method),
        (":protocol", protocol),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a.test"),
    ]
    return [*pseudo, ("sec-websocket-version", "13"), *fields]


def opened(
    name: str, path: str, accepted: Reply, *, listener: str = "http", refused: bool = False, **options: Any
) -> None:
    """Extended CONNECT, some octets in capitals, and the end; where it is refused, nothing more."""
    talk = (AwaitHead(1), data(1, b"hello", end=False), AwaitData(1, 5), data(1))
    if accepted is SWITCH:
        options = {
            "streams": {0: ()},
            "linger": 0.05,
            **options,
        }  # neither proxy passes on the end, so there is none to await
    table.frames(
        name,
        *(headers(1, extended(path), end=False), *(() if refused else talk)),
        listener=listener,
        upstream=accepted,
        deadline=0.2,
        **options,
    )


for _listener in ("http", "not-allowed", "not-configured"):
    opened(f"websocket-{_listener}-down", "/", SWITCH, listener=_listener)
    opened(f"websocket-{_listener}-two", "/two", ACCEPT, listener=_listener, upstream_settings=ALLOWED)
opened("websocket-off-by-route", "/off", SWITCH, refused=True)
opened("websocket-two-upstream-does-not-allow", "/two", ACCEPT)
opened("websocket-two-cluster-does-not-allow", "/plain-two", ACCEPT, upstream_settings=ALLOWED)
opened("websocket-refused-down", "/", reply(403, early=True), refused=True)
opened("websocket-ignored-down", "/", reply(200, early=True), refused=True)
opened("websocket-refused-two", "/two", answer(403, early=True), upstream_settings=ALLOWED, refused=True)
opened("websocket-accepted-with-201", "/two", Reply((Head([(":status", "201")]), Tunnel())), upstream_settings=ALLOWED)
opened(
    "websocket-answered-with-101",
    "/two",
    Reply((Head([(":status", "101")]), Tunnel())),
    upstream_settings=ALLOWED,
    refused=True,
)
opened("websocket-reset-two", "/two", Reply((ResetStream(8),)), upstream_settings=ALLOWED, refused=True)
opened("websocket-close-down", "/", Reply((Close(),)), refused=True)
opened(
    "websocket-with-upstream-fields-down",
    "/",
    Reply(
        (
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade, x\r\nupgrade: websocket\r\nx: 1\r\n"
            b"sec-websocket-accept: y\r\n\r\n",
            Tunnel(),
        )
    ),
)
for _way, _path, _accepted, _bye in (
    ("down", "/", SWITCH, Reply((*SWITCH.steps[:1], b"bye", Close()))),
    ("two", "/two", ACCEPT, Reply((Head([(":status", "200")]), Body(b"bye", end=True)))),
):
    _of: dict[str, Any] = {"upstream_settings": ALLOWED, "deadline": 0.2}
    table.frames(
        f"websocket-data-at-once-{_way}",
        *(headers(1, extended(_path), end=False) + data(1, b"early", end=False), AwaitData(1, 5), data(1)),
        upstream=_accepted,
        **_of,
    )
    table.frames(
        f"websocket-ended-by-its-head-{_way}", headers(1, extended(_path), end=True), upstream=_accepted, **_of
    )
    table.frames(
        f"websocket-upstream-ends-{_way}", headers(1, extended(_path), end=False), AwaitHead(1), upstream=_bye, **_of
    )
    table.frames(
        f"websocket-client-resets-{_way}",
        *(headers(1, extended(_path), end=False), AwaitHead(1), reset(1)),
        upstream=_accepted,
        streams={0: ()},
        upstream_requests=1,
        upstream_settings=ALLOWED,
    )
    table.frames(
        f"websocket-client-aborts-{_way}",
        *(headers(1, extended(_path), end=False), AwaitHead(1), Abort()),
        upstream=_accepted,
        streams={0: ()},
        upstream_requests=1,
        upstream_settings=ALLOWED,
    )
    table.frames(
        f"websocket-other-protocol-{_way}",
        headers(1, extended(_path, protocol="tea"), end=False),
        upstream=_accepted,
        **_of,
    )
    table.frames(
        f"websocket-in-capitals-{_way}",
        *(headers(1, extended(_path, protocol="WebSocket"), end=False), AwaitHead(1), data(1)),
        upstream=_accepted,
        **_of,
    )
    table.frames(
        f"websocket-with-length-{_way}",
        *(headers(1, extended(_path, ("content-length", "5")), end=False), AwaitHead(1), data(1, b"hello")),
        upstream=_accepted,
        **_of,
    )
    table.frames(
        f"websocket-with-upgrade-fields-{_way}",
        headers(1, extended(_path, ("connection", "upgrade"), ("upgrade", "websocket")), end=False),
        upstream=_accepted,
        **_of,
    )
    table.frames(
        f"websocket-trailers-{_way}",
        *(headers(1, extended(_path), end=False), AwaitHead(1), headers(1, [("x-t", "1")])),
        upstream=_accepted,
        **_of,
    )
    table.add(
        f"websocket-from-http1-{_way}",
        request("GET", _path, [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x")]),
        AwaitResponses(1),
        Send(b"hello"),
        AwaitBytes(b"HELLO"),
        Finish(),
        methods=["GET"],
        upstream=_accepted,
        **_of,
    )
    table.add(
        f"websocket-from-http1-upstream-ends-{_way}",
        request("GET", _path, [("Connection", "Upgrade"), ("Upgrade", "websocket")]),
        AwaitClose(),
        upstream=_bye,
        **_of,
    )
    table.add(
        f"websocket-from-http1-refused-{_way}",
        request("GET", _path, [("Connection", "Upgrade"), ("Upgrade", "websocket")]),
        upstream=reply(403) if _way == "down" else answer(403, early=True),
        **_of,
    )
    table.add(
        f"websocket-from-http1-client-aborts-{_way}",
        request("GET", _path, [("Connection", "Upgrade"), ("Upgrade", "websocket")]),
        AwaitResponses(1),
        Abort(),
        methods=["GET"],
        upstream=_accepted,
        upstream_requests=1,
        upstream_settings=ALLOWED,
    )
opened("websocket-protocol-on-get", "/", SWITCH, streams={0: (1,)})
table.head("protocol-on-get", extended("/", method="GET"), deadline=0.3)
table.head("protocol-empty", extended("/", protocol=""), end=False, deadline=0.3)
table.head("protocol-with-crlf", extended("/", protocol="websocket\r\nx: y"), end=False, deadline=0.3)
table.head("extended-without-path", [one for one in extended("/") if one[0] != ":path"], end=False, deadline=0.3)
table.head("extended-without-scheme", [one for one in extended("/") if one[0] != ":scheme"], end=False, deadline=0.3)
table.head(
    "extended-without-authority", [one for one in extended("/") if one[0] != ":authority"], end=False, deadline=0.3
)
table.get("get-beside")
table.ask("get-beside-2", "/two", upstream_settings=ALLOWED)

CONNECT = [(":method", "CONNECT"), (":authority", "a.test:443")]
ECHO = {"tcp": [Reply((Tunnel(),))]}


def connected(name: str, listener: str, accepted: Any, *, refused: bool = False, **options: Any) -> None:
    """CONNECT, some octets in capitals, and the end; where it is refused, nothing more."""
    talk = (AwaitHead(1), data(1, b"hello", end=False), AwaitData(1, 5), data(1))
    table.frames(
        name,
        *(headers(1, CONNECT, end=False), *(() if refused else talk)),
        listener=listener,
        upstream=accepted,
        deadline=0.2,
        **options,
    )


connected("connect-terminated", "connect", ECHO)
connected("connect-two", "connect-two", ACCEPT)
connected("connect-down", "connect-down", Reply((b"HTTP/1.1 200 OK\r\n\r\n", Tunnel())))
connected("connect-not-configured", "http", ECHO, refused=True)
connected("connect-not-allowed", "not-allowed", ECHO, refused=True)
connected("connect-two-refused", "connect-two", answer(403, early=True), refused=True)
connected("connect-two-reset", "connect-two", Reply((ResetStream(10),)), refused=True)
connected("connect-two-accepted-and-ended", "connect-two", Reply((Head([(":status", "200")], end=True),)), refused=True)
connected("connect-down-refused", "connect-down", reply(403, early=True), refused=True)
table.frames(
    "connect-data-at-once",
    *(headers(1, CONNECT, end=False) + data(1, b"early", end=False), AwaitData(1, 5), data(1)),
    listener="connect",
    upstream=ECHO,
    deadline=0.2,
)
table.frames(
    "connect-upstream-closes",
    *(headers(1, CONNECT, end=False), AwaitHead(1), data(1, b"hello", end=False)),
    listener="connect",
    upstream={"tcp": [Reply((ReadUntil(b"hello"), b"bye", Close()))]},
    deadline=0.2,
)
table.frames(
    "connect-client-resets",
    *(headers(1, CONNECT, end=False), AwaitHead(1), AwaitUpstream(1), reset(1)),
    listener="connect",
    upstream=ECHO,
    streams={0: ()},
    upstream_requests=1,
)
table.frames(
    "connect-client-ends-first",
    *(headers(1, CONNECT, end=False), AwaitHead(1), data(1, b"hello"), AwaitData(1, 5)),
    listener="connect",
    upstream=ECHO,
    deadline=0.2,
)
table.head("connect-with-path", [*CONNECT, (":path", "/")], end=False, listener="connect", deadline=0.3)
table.head("connect-with-scheme", [*CONNECT, (":scheme", "http")], end=False, listener="connect", deadline=0.3)
table.head("connect-without-authority", CONNECT[:1], end=False, listener="connect", deadline=0.3)
table.head(
    "connect-with-all", [*CONNECT, (":scheme", "http"), (":path", "/")], end=False, listener="connect", deadline=0.3
)
table.add(
    "connect-from-http1-two",
    request("CONNECT", "a.test:443", host="a.test:443"),
    AwaitResponses(1),
    Send(b"hello"),
    AwaitBytes(b"HELLO"),
    methods=["CONNECT"],
    listener="connect-two",
    upstream=ACCEPT,
    deadline=0.2,
)
table.add(
    "connect-from-http1-two-refused",
    request("CONNECT", "a.test:443", host="a.test:443"),
    methods=["CONNECT"],
    listener="connect-two",
    upstream=answer(403, early=True),
    deadline=0.2,
)
