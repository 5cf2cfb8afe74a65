"""Upgrades to WebSocket, and CONNECT: enabled, refused, and followed by more bytes."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, cluster, listener, manager, route, to
from tests.differential.case import (
    AwaitBytes,
    AwaitClose,
    AwaitResponses,
    Close,
    Finish,
    Reply,
    Send,
    Table,
    Tunnel,
    reply,
    request,
)


def upgrades(site: Site) -> Message:
    websocket: Message = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
    connect: Message = {"upgrade_configs": [{"upgrade_type": "CONNECT"}]}
    to_tcp = {"route": {"cluster": "tcp", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}}
    connect_routes = [route({"connect_matcher": {}}, to_tcp), route("/")]
    by_route = [
        route("/off", to("a", upgrade_configs=[{"upgrade_type": "websocket", "enabled": False}])),
        route("/on", to("a", upgrade_configs=[{"upgrade_type": "websocket"}])),
        route("/"),
    ]
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, by_route)),
            listener(site, "websocket", manager(site, by_route, **websocket)),
            listener(site, "connect", manager(site, connect_routes, **connect)),
            listener(site, "connect-to-http", manager(site, [route({"connect_matcher": {}}), route("/")], **connect)),
        ],
        [cluster(site, "tcp")],
    )


BOOTSTRAPS = {"upgrades": upgrades}

table = Table("protocol", "upgrades")
CASES = table.cases
add = table.add
get = table.get

ASK = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x")]
SWITCH = Reply((b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n", Tunnel()))
up: dict[str, Any] = {"bootstrap": "upgrades"}
for _listener in ("http", "websocket"):
    for _path in ("/on", "/off", "/"):
        add(
            f"websocket-{_listener}-{_path}",
            request("GET", _path, ASK),
            AwaitResponses(1),
            Send(b"hello"),
            AwaitBytes(b"HELLO"),
            Finish(),
            methods=["GET"],
            listener=_listener,
            upstream=SWITCH,
            deadline=0.3,
            **up,
        )
add(
    "websocket-data-at-once",
    request("GET", "/", ASK) + b"early",
    AwaitBytes(b"EARLY"),
    methods=["GET"],
    listener="websocket",
    upstream=SWITCH,
    **up,
)
add("websocket-refused-by-upstream", request("GET", "/", ASK), listener="websocket", upstream=reply(403), **up)
add("websocket-ignored-by-upstream", request("GET", "/", ASK), listener="websocket", upstream=reply(200), **up)
add(
    "websocket-upstream-closes",
    request("GET", "/", ASK),
    AwaitClose(),
    listener="websocket",
    upstream=Reply((*SWITCH.steps[:1], b"bye", Close())),
    **up,
)
add("websocket-no-answer", request("GET", "/", ASK), listener="websocket", upstream=Reply((Close(),)), **up)
add(
    "websocket-capitals",
    request("GET", "/", [("Connection", "keep-alive, UPGRADE"), ("Upgrade", "WebSocket")]),
    AwaitResponses(1),
    Send(b"hello"),
    AwaitBytes(b"HELLO"),
    methods=["GET"],
    listener="websocket",
    upstream=SWITCH,
    **up,
)
add(
    "websocket-other-protocol",
    request("GET", "/", [("Connection", "Upgrade"), ("Upgrade", "tea")]),
    listener="websocket",
    **up,
)
add(
    "websocket-with-length",
    request("POST", "/", [*ASK], body=b"body"),
    methods=["POST"],
    listener="websocket",
    upstream=SWITCH,
    **up,
)
add("websocket-without-connection-header", request("GET", "/", [("Upgrade", "websocket")]), listener="websocket", **up)
CONNECT = request("CONNECT", "a.test:443", host="a.test:443")
ECHO = {"tcp": [Reply((Tunnel(),))]}
add(
    "connect",
    CONNECT,
    AwaitResponses(1),
    Send(b"hello"),
    AwaitBytes(b"HELLO"),
    Finish(),
    methods=["CONNECT"],
    listener="connect",
    upstream=ECHO,
    upstream_requests=1,
    **up,
)
add(
    "connect-data-at-once",
    CONNECT + b"early",
    AwaitBytes(b"EARLY"),
    methods=["CONNECT"],
    listener="connect",
    upstream=ECHO,
    upstream_requests=1,
    **up,
)
add(
    "connect-no-host",
    b"CONNECT a.test:443 HTTP/1.1\r\n\r\n",
    methods=["CONNECT"],
    listener="connect",
    deadline=0.3,
    **up,
)
add(
    "connect-other-host",
    request("CONNECT", "a.test:443", host="b.test"),
    methods=["CONNECT"],
    listener="connect",
    upstream=ECHO,
    deadline=0.3,
    **up,
)
add(
    "connect-proxied",
    CONNECT,
    AwaitResponses(1),
    Send(b"hello"),
    AwaitBytes(b"HELLO"),
    methods=["CONNECT"],
    listener="connect-to-http",
    upstream=Reply((b"HTTP/1.1 200 OK\r\n\r\n", Tunnel())),
    **up,
)
add(
    "connect-proxied-refused",
    CONNECT,
    methods=["CONNECT"],
    listener="connect-to-http",
    upstream=reply(403, early=True),
    deadline=0.3,
    **up,
)
add("connect-get-beside", request("GET", "/"), listener="connect", **up)
