"""Many identities over mTLS at the same policies: both proxies let the same ones pass, and log and count the same."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.differential import proxies
from tests.differential.blocks import (
    Message,
    Site,
    access_log,
    bootstrap,
    http_filter,
    listener,
    manager,
    network_filter,
    route,
    say,
)
from tests.differential.cases.rbac import permission_by_path, policy
from tests.differential.proxies import ENVOY, FreePorts, Proxy
from tests.differential.runner import Runner
from tests.sidecar.cel_text import parse_cel
from tests.sidecar.tls_bootstraps import downstream_socket
from tests.sidecar.transport.certificates import Certificate
from tests.sidecar.transport.serving import AUTHORITY, trusted

_SPIFFE = "spiffe://cluster.local/ns"
IDENTITIES: Mapping[str, Certificate | None] = {
    "page": AUTHORITY.issue("page", [f"{_SPIFFE}/shop/sa/page"]),
    "reviews": AUTHORITY.issue("reviews", [f"{_SPIFFE}/shop/sa/reviews"]),
    "other-namespace": AUTHORITY.issue("other", [f"{_SPIFFE}/other/sa/page"]),
    "other-domain": AUTHORITY.issue("domain", ["spiffe://elsewhere/ns/shop/sa/page"]),
    "two-names": AUTHORITY.issue("two", [f"{_SPIFFE}/x/sa/y", f"{_SPIFFE}/shop/sa/page"]),
    "name-within": AUTHORITY.issue("within", [f"{_SPIFFE}/x/sa/ns/shop/sa/page"]),
    "dns": AUTHORITY.issue("dns", ["page.shop.example"]),
    "dns-and-uri": AUTHORITY.issue("mixed", ["page.shop.example", f"{_SPIFFE}/a/sa/b"]),
    "mail-only": AUTHORITY.issue("plain", []),
    "nobody": None,
}


def _named(**match: Any) -> Message:
    return {"authenticated": {"principal_name": match}}


def _mtls(**fields: Any) -> Message:
    return {
        "custom": {
            "name": "envoy.rbac.principals.mtls_authenticated",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.rbac.principals.mtls_authenticated.v3.Config",
                **fields,
            },
        }
    }


PRINCIPALS: Mapping[str, Message] = {
    "/exact": _named(exact=f"{_SPIFFE}/shop/sa/page"),
    "/prefix": _named(prefix=f"{_SPIFFE}/shop/"),
    "/suffix": _named(suffix="/sa/page"),
    "/contains": _named(contains="/ns/shop/"),
    "/namespace": _named(safe_regex={"regex": ".*/ns/shop/.*"}),
    "/ignoring-case": _named(prefix=f"{_SPIFFE.upper()}/SHOP", ignore_case=True),
    "/subject": _named(contains="CN=plain"),
    "/dns": _named(exact="page.shop.example"),
    "/either": {"or_ids": {"ids": [_named(suffix="/sa/reviews"), _named(exact="page.shop.example")]}},
    "/both": {"and_ids": {"ids": [_named(prefix=_SPIFFE), {"direct_remote_ip": {"address_prefix": "127.0.0.1"}}]}},
    "/mtls": _mtls(any_validated_client_certificate=True),
    "/mtls-uri": _mtls(san_matcher={"san_type": "URI", "matcher": {"suffix": "/sa/page"}}),
    "/mtls-dns": _mtls(san_matcher={"san_type": "DNS", "matcher": {"exact": "page.shop.example"}}),
}
CONDITIONS = [
    "connection.mtls",
    f"connection.uri_san_peer_certificate == '{_SPIFFE}/shop/sa/page'",
    "connection.uri_san_peer_certificate.matches('/ns/(shop|x)/')",
    "has(connection.uri_san_peer_certificate)",
    "connection.dns_san_peer_certificate.startsWith('page.')",
    "connection.subject_peer_certificate.contains('CN=plain')",
    "connection.subject_peer_certificate == ''",
    "connection.subject_local_certificate.contains('CN=')",
    "has(connection.uri_san_local_certificate) || has(connection.dns_san_local_certificate)",
    "connection.tls_version == 'TLSv1.3'",
    "has(connection.sha256_peer_certificate_digest)",
    "size(connection.sha256_peer_certificate_digest) == 64",
    "connection.requested_server_name == 'localhost'",
    "connection.requested_server_name == ''",
]
PATHS = [*PRINCIPALS, *(f"/c{number}" for number in range(len(CONDITIONS))), "/nothing"]


def _bootstrap(site: Site) -> Message:
    policies = {path: policy([permission_by_path(exact=path)], [principal]) for path, principal in PRINCIPALS.items()}
    for number, text in enumerate(CONDITIONS):
        policies[f"c{number}"] = policy([permission_by_path(exact=f"/c{number}")], condition=parse_cel(text))
    logged = {
        "path": "%REQ(:PATH)%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "rbac": "%DYNAMIC_METADATA(envoy.filters.http.rbac)%",
        "peer": "%DOWNSTREAM_PEER_URI_SAN%",
    }
    shadow = {"policies": {"shop": policy(None, [_named(safe_regex={"regex": ".*/ns/shop/.*"})])}}
    enforced = http_filter("rbac", "RBAC", rules={"policies": policies}, shadow_rules=shadow, track_per_rule_stats=True)
    answering = [route("/", say(200, "yes"))]
    http_chain = manager(site, answering, filters=[enforced], access_log=[access_log(site, logged)])
    judge = network_filter(
        "rbac", "RBAC", stat_prefix="net", rules={"policies": {"page": policy(None, [PRINCIPALS["/suffix"]])}},
        shadow_rules=shadow, shadow_rules_stat_prefix="sp_",
    )  # fmt: skip
    listeners = [
        listener(site, "http", http_chain),
        listener(site, "network", judge, manager(site, answering, access_log=[])),
    ]
    inspector = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
    for one in listeners:
        one["filter_chains"][0]["transport_socket"] = downstream_socket(common={"validation_context": trusted()})
        one["listener_filters"] = [{"name": "tls_inspector", "typed_config": {"@type": inspector}}]
    return bootstrap(site, listeners)


@pytest.fixture(scope="module")
def both(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Proxy]]:
    ports = FreePorts()
    started: dict[str, Proxy] = {}
    try:
        for kind in (ENVOY, runner.subject):
            taken: dict[str, int] = {}

            def take(name: str, taken: dict[str, int] = taken) -> int:
                taken[name] = ports.take()
                return taken[name]

            directory = tmp_path_factory.mktemp(f"rbac-{len(started)}")
            document = _bootstrap(Site(runner.upstream_ports, take, directory))
            started["envoy" if not started else "subject"] = proxies.start(kind, document, taken, directory)
        yield started
    finally:
        for proxy in started.values():
            proxy.stop()


def _context(folder: Path, identity: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    certificate = IDENTITIES[identity]
    if certificate is not None:
        context.load_cert_chain(*certificate.write(folder, identity))
    return context


def _answers(port: int, context: ssl.SSLContext) -> list[int | str]:
    """The status of each path, on one connection as long as it lasts."""
    connection = http.client.HTTPSConnection("localhost", port, timeout=5, context=context)
    found: list[int | str] = []
    try:
        for path in PATHS:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            found.append(response.status)
    except (ConnectionError, http.client.HTTPException, ssl.SSLError):
        found.append("closed")
    finally:
        connection.close()
    return found


@pytest.mark.parametrize("identity", IDENTITIES)
@pytest.mark.parametrize("at", ["http", "network"])
def test_the_same_may_pass(both: dict[str, Proxy], tmp_path: Path, at: str, identity: str) -> None:
    context = _context(tmp_path, identity)
    envoy, subject = (_answers(both[side].ports[at], context) for side in ("envoy", "subject"))
    assert dict(zip(PATHS, subject, strict=False)) == dict(zip(PATHS, envoy, strict=False))
    if identity == "page":
        assert 200 in envoy
    if at == "http":
        assert envoy[-1] == 403


def test_the_same_is_logged_and_counted(both: dict[str, Proxy]) -> None:
    def counted(proxy: Proxy) -> list[str]:
        return sorted(line for line in proxy.admin("/stats?filter=rbac")[2].splitlines() if not line.endswith(": 0"))

    def lines(proxy: Proxy) -> list[Any]:
        text = proxy.access_log.read_text() if proxy.access_log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    until = time.monotonic() + 5
    while len(lines(both["envoy"])) != len(lines(both["subject"])) or counted(both["envoy"]) != counted(
        both["subject"]
    ):
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    assert counted(both["subject"]) == counted(both["envoy"])
    assert lines(both["subject"]) == lines(both["envoy"])
