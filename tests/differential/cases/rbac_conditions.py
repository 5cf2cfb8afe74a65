"""The rbac filter's conditions in CEL: the language as Envoy has it, and every attribute that a plain connection shows."""

from __future__ import annotations

from tests.differential.blocks import (
    LOGGED,
    Message,
    Site,
    access_log,
    bootstrap,
    http_filter,
    listener,
    manager,
    route,
    to,
)
from tests.differential.case import Table
from tests.differential.cases.rbac import policy
from tests.sidecar.cel_text import parse_cel

CONDITIONS = [
    # attributes of the request
    "request.path == '/c0?x=1&y=2'",
    "request.url_path == '/c1'",
    "request.query == 'x=1&y=2'",
    "request.host == 'a.test'",
    "request.scheme == 'http'",
    "request.method == 'GET'",
    "request.headers['x-a'] == 'yes'",
    "request.headers['X-A'] == 'yes'",
    "request.headers['x-a'] == 'yes,no'",
    "request.headers['x-none'] == ''",
    "!has(request.headers.none)",
    "'x-a' in request.headers",
    "'x-none' in request.headers || true",
    "request.headers[':path'].startsWith('/c')",
    "request.headers['host'] == 'a.test'",
    "request.headers[':authority'] == 'a.test'",
    "request.headers['x-a'].contains('o') && request.headers['x-a'].endsWith('o')",
    "request.referer == 'r'",
    "has(request.referer)",
    "request.useragent == 'u'",
    "request.id != ''",
    "request.id == 'abc'",
    "request.protocol == 'HTTP/1.1'",
    "request.size == 0",
    "request.size == 3",
    "request.time > timestamp('2020-01-01T00:00:00Z')",
    "request.time.getFullYear() >= 2024",
    "request['method'] == 'POST'",
    # of the connection, the route, and what other filters left
    "connection.mtls",
    "!connection.mtls",
    "connection.requested_server_name == ''",
    "connection.tls_version == 'TLSv1.3'",
    "has(connection.tls_version)",
    "has(connection.uri_san_peer_certificate)",
    "connection.id > 0u",
    "type(connection.id) == uint",
    "source.address.startsWith('127.0.0.1:')",
    "source.port > 1000",
    "type(source.port) == int",
    "destination.address.startsWith('127.0.0.1:')",
    "destination.port > 1000",
    "'none' in metadata.filter_metadata",
    "has(metadata.filter_metadata)",
    "metadata.filter_metadata['none']['x'] == 'y'",
    "has(filter_state.none)",
    "xds.route_name == 'named'",
    "has(xds.route_name)",
    "xds.virtual_host_name == 'all'",
    "xds.route_metadata.filter_metadata['owner']['team'] == 'shop'",
    "xds.route_metadata.filter_metadata['owner']['size'] == 3.0",
    "xds.route_metadata.filter_metadata['owner']['size'] == 3",
    "xds.route_metadata.filter_metadata['owner']['list'][1] == 'b'",
    "'b' in xds.route_metadata.filter_metadata['owner']['list']",
    "has(xds.route_metadata.filter_metadata['owner'].none)",
    "xds.filter_chain_name == ''",
    # the language
    "1 == 1.0 && 1u == 1 && 2 > 1u",
    "1 == 'a' || request.method == 'GET'",
    "1 != 'a'",
    "true && 1",
    "1 || request.method == 'GET'",
    "1 / 0 == 1 || request.method == 'GET'",
    "request.method == 'GET' || 1 / 0 == 1",
    "1 / 0 == 1 && request.method == 'GET'",
    "request.method == 'GET' ? true : false",
    "request.headers['none'] == 'x' ? true : true",
    "-5 / 2 == -2 && -5 % 3 == -2",
    "9223372036854775807 + 1 > 0",
    "'a' + 'b' == 'ab'",
    "'a' < 'b' && b'a' < b'b' && false < true",
    "[1, 2] == [1, 2] && {'a': 1} == {'a': 1}",
    "{1: 'a'}[1u] == 'a'",
    "request.method in ['GET', 'PUT']",
    "request.method in {'GET': 1}",
    "[1, 2][2] == 1",
    "[1, 2][1.0] == 2",
    "size('é😀') == 2 && size([1]) == 1 && size({}) == 0 && size(b'abc') == 3",
    "'abc'.size() == 3",
    "request.path.matches('^/c[0-9]+')",
    "matches(request.path, 'x=1$')",
    "int('12') == 12 && uint('3') == 3u && double('1.5') == 1.5",
    "int('1 2') == 12",
    "int(2.9) == 2 && int(-2.9) == -2",
    "bool('true')",
    "bytes('a') == b'a'",
    "duration('1h30m') == duration('90m')",
    "timestamp('2024-02-29T12:00:00Z').getDayOfYear() == 59",
    "timestamp('2024-02-29T23:30:00Z').getDate('+01:00') == 1",
    "timestamp('2024-02-29T23:30:00Z').getHours('Europe/Berlin') == 0",
    "duration('3661s').getMinutes() == 61 && duration('3661s').getSeconds() == 3661",
    "type(1) == int && type('a') == string && type([]) == list && type({}) == map && type(null) == null_type",
    "dyn(1) == 1",
    "null == null",
    "request.method",
    "1",
]

STRINGS = [
    "string(1) == '1' && string(true) == 'true' && string(b'a') == 'a' && string(2u) == '2'",
    "string(1.5) == '1.5'",
    "string(0.1) == '0.1' && string(100000000.0) == '1e+08'",
    "string(duration('90s')) == '90s'",
    "string(timestamp('2024-01-02T03:04:05Z')) == '2024-01-02T03:04:05Z'",
    "'a' + request.method == 'aGET'",
    "b'a' + b'b' == b'ab'",
    "request.headers['x-a'].upperAscii() == 'YES'",
    "'AÉ'.lowerAscii() == 'aÉ'",
    "' a '.trim() == 'a'",
    "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c']",
    "'a,b,c'.split(',', 0) == [] && 'abc'.split('') == ['a', 'b', 'c']",
    "['a', 'b'].join('-') == 'a-b' && ['a', 'b'].join() == 'ab'",
    "'hello'.replace('l', 'L') == 'heLLo' && 'hello'.replace('l', 'L', 1) == 'heLlo'",
    "'hello'.indexOf('l') == 2 && 'hello'.lastIndexOf('l') == 3 && 'hello'.indexOf('l', 3) == 3",
    "'hello'.indexOf('z') == -1 && 'hello'.indexOf('') == 0",
    "'hello'.substring(1) == 'ello' && 'hello'.substring(1, 3) == 'el'",
    "'hello'.charAt(1) == 'e' && 'hello'.charAt(5) == ''",
    "'hello'.reverse() == 'olleh'",
]
_ON = {"enable_string_conversion": True, "enable_string_concat": True, "enable_string_functions": True}


def conditions(site: Site) -> Message:
    """A policy for each condition, which a path of its own asks."""

    def asked(number: int, text: str, **fields: object) -> tuple[str, Message]:
        path = {"url_path": {"path": {"exact": f"/c{number}"}}}
        return f"c{number}", policy([path], condition=parse_cel(text), **fields)

    def rbac(policies: dict[str, Message], action: str = "ALLOW") -> Message:
        return http_filter("rbac", "RBAC", rules={"action": action, "policies": policies})

    metadata = {"filter_metadata": {"owner": {"team": "shop", "size": 3, "list": ["a", "b"]}}}
    routes = [route("/", to("a"), name="named", metadata=metadata)]
    plain = dict(asked(number, text) for number, text in enumerate(CONDITIONS))
    strings = dict(asked(number, text, cel_config=_ON) for number, text in enumerate(STRINGS))
    hint = {**LOGGED, "hint": "%DYNAMIC_METADATA(envoy.filters.http.rbac)%"}
    logs = [access_log(site, hint)]
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, routes, filters=[rbac(plain)], access_log=logs)),
            listener(site, "deny", manager(site, routes, filters=[rbac(plain, "DENY")], access_log=logs)),
            listener(site, "strings", manager(site, routes, filters=[rbac(strings)], access_log=logs)),
        ],
    )


BOOTSTRAPS = {"rbac-conditions": conditions}

table = Table("rbac-conditions", "rbac-conditions")
CASES = table.cases
for _number, _text in enumerate(CONDITIONS):
    _path = f"/c{_number}?x=1&y=2"
    table.get(f"{_text}: bare", _path)
    table.get(
        f"{_text}: with headers",
        f"/c{_number}",
        [("X-A", "yes"), ("x-a", "no"), ("Referer", "r"), ("User-Agent", "u"), ("X-Request-Id", "abc")],
        method="POST",
        body=b"abc",
    )
    table.get(f"{_text}: with one header", _path, [("X-A", "yes")], listener="deny")
for _number, _text in enumerate(STRINGS):
    table.get(_text, f"/c{_number}", [("X-A", "yes")], listener="strings")
