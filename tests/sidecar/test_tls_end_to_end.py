"""The whole sidecar with TLS: real clients and servers on both sides of it."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import subprocess
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sidecar.config.problems import ConfigurationError
from tests.running import get
from tests.sidecar.bootstraps import address, cluster, direct, http_listener, to_cluster
from tests.sidecar.tls_bootstraps import (
    Client,
    client_context,
    connected,
    counted,
    downstream_socket,
    field_of,
    mutual,
    originating,
    secured,
    serving,
    until,
    upstream,
)
from tests.sidecar.transport.certificates import Authority, Certificate
from tests.sidecar.transport.serving import (
    AUTHORITY,
    CLIENT,
    CURL,
    OPENSSL,
    SERVER,
    STRANGERS,
    inline,
    needs_curl,
    needs_openssl,
    trusted,
)

ENOUGH = 8  # requests on a connection, so that the express lane takes over


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main

    uvloop.run(bounded())


def written(folder: Path, certificate: Certificate, name: str = "client") -> tuple[str, str]:
    chain, key = certificate.write(folder, name)
    return str(chain), str(key)


def file_log(path: str, text: str) -> dict[str, Any]:
    """An access log in this format."""
    file = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    format = {"text_format_source": {"inline_string": text}}
    return {"name": "file", "typed_config": {"@type": file, "path": path, "log_format": format}}


def post(port: int, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", path)
    assert connection.getresponse().status == 200
    connection.close()


def with_format(listener: dict[str, Any], text: str) -> dict[str, Any]:
    """The listener with this format in its access log."""
    (log,) = listener["filter_chains"][0]["filters"][0]["typed_config"]["access_log"]
    log["typed_config"]["log_format"] = {"text_format_source": {"inline_string": text}}
    return listener


def server_context(folder: Path, certificate: Certificate = SERVER, *, mutual: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*written(folder, certificate, "upstream"))
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=AUTHORITY.pem.decode())
    return context


def test_https_in_and_plain_out() -> None:
    async def main() -> None:
        async with upstream() as service:
            one = secured(http_listener("one", 0, [to_cluster("up")]))
            async with serving(one, clusters=[cluster("up", service.port)]) as server:
                async with connected(server.address("one")[1], client_context(names=True)) as client:
                    for _ in range(ENOUGH):
                        status, head = await client.get()
                        assert status == 200
                        assert field_of(head, b"x-forwarded-proto") == b"https"
                        assert field_of(head, b"x-forwarded-client-cert") is None
                numbers = counted(server)
                prefix = "listener.127.0.0.1_0.ssl."
                assert numbers[prefix + "handshake"] == numbers[prefix + "no_certificate"] == 1
                assert numbers[prefix + "versions.TLSv1.3"] == 1
                assert sum(numbers[name] for name in numbers if name.startswith(prefix + "ciphers.")) == 1
                assert numbers["http.one.downstream_cx_ssl_total"] == 1

    run(main())


def test_statistics_have_the_tags_of_envoy() -> None:
    async def main() -> None:
        async with serving(secured(http_listener("one", 0, [direct("hello")]))) as server:
            async with connected(server.address("one")[1], client_context()) as client:
                await client.get()
            page = (await asyncio.to_thread(get, server.admin_address[1], "/stats/prometheus"))[2]
            assert 'envoy_listener_ssl_versions{envoy_ssl_version="TLSv1.3",envoy_listener_address="127.0.0.1_0"} 1' in page
            assert 'envoy_listener_ssl_handshake{envoy_listener_address="127.0.0.1_0"} 1' in page

    run(main())


def test_plain_in_and_tls_out(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream(server_context(tmp_path)) as service:
            names = trusted(match_typed_subject_alt_names=[{"san_type": "DNS", "matcher": {"exact": "server.example"}}])
            up = originating(cluster("up", service.port), validation=names, sni="server.example")
            async with serving(http_listener("one", 0, [to_cluster("up")]), clusters=[up]) as server:
                async with connected(server.address("one")[1], None) as client:
                    for _ in range(ENOUGH):
                        status, head = await client.get()
                        assert status == 200
                        assert field_of(head, b"x-forwarded-proto") == b"http"
                numbers = counted(server)
                assert numbers["cluster.up.ssl.handshake"] == numbers["cluster.up.upstream_cx_total"] == 1
                assert numbers["cluster.up.upstream_rq_200"] == ENOUGH

    run(main())


def test_mutual_tls_on_both_sides(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def main() -> None:
        async with upstream(server_context(tmp_path, mutual=True)) as service:
            one = mutual(http_listener("one", 0, [to_cluster("up")]))
            one["access_log"] = [file_log(str(log), "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%\n")]
            up = originating(cluster("up", service.port), CLIENT, sni="server.example")
            async with serving(one, clusters=[up]) as server:
                port = server.address("one")[1]
                async with connected(port, client_context(written(tmp_path, CLIENT))) as client:
                    for _ in range(ENOUGH):
                        assert (await client.get())[0] == 200
                with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                    async with connected(port, client_context()) as stranger:
                        await stranger.get()
                stranger_certificate = written(tmp_path, STRANGERS.issue("stranger"), "stranger")
                with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                    async with connected(port, client_context(stranger_certificate)) as stranger:
                        await stranger.get()
                numbers = counted(server)
                assert numbers["listener.127.0.0.1_0.ssl.fail_verify_no_cert"] == 1
                assert numbers["listener.127.0.0.1_0.ssl.fail_verify_error"] == 1
                assert numbers["cluster.up.ssl.handshake"] == 1
        fine, stranger_line, none = sorted(log.read_text().splitlines())
        assert fine == "-"
        assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in none
        assert "CERTIFICATE_VERIFY_FAILED" in stranger_line

    run(main())


FIRST = AUTHORITY.issue("first", ["first.example"])
SECOND = AUTHORITY.issue("second", ["second.example"])


def test_the_server_name_chooses_the_certificate() -> None:
    async def main() -> None:
        async with serving(secured(http_listener("one", 0, [direct("hello")]), FIRST, SECOND)) as server:
            for name, certificate in (("first.example", FIRST), ("second.example", SECOND)):
                async with connected(server.address("one")[1], client_context(names=True), name) as client:
                    assert client.shown == certificate.der
                    assert await client.get() == (200, b"hello")

    run(main())


def test_the_server_name_chooses_the_filter_chain() -> None:
    one = secured(http_listener("one", 0, [direct("first")]), FIRST)
    other = secured(http_listener("two", 0, [direct("second")]), SECOND)
    one["filter_chains"] += other["filter_chains"]
    for chain, name in zip(one["filter_chains"], ("first.example", "second.example"), strict=True):
        chain["filter_chain_match"] = {"server_names": [name]}
    inspector = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
    one["listener_filters"] = [{"name": "tls_inspector", "typed_config": {"@type": inspector}}]

    async def main() -> None:
        async with serving(one) as server:
            for name, certificate in (("first", FIRST), ("second", SECOND)):
                async with connected(server.address("one")[1], client_context(names=True), f"{name}.example") as client:
                    assert client.shown == certificate.der
                    assert await client.get() == (200, name.encode())

    run(main())


OWN = f"by=spiffe://td/server;hash={CLIENT.sha256}"
SENT = "hash=abc;uri=spiffe://td/forged"


@pytest.mark.parametrize(
    ("mode", "with_certificate", "without"),
    [
        ("SANITIZE", None, None),
        ("FORWARD_ONLY", SENT, None),
        ("APPEND_FORWARD", f"{SENT},{OWN};uri=spiffe://td/client", None),
        ("SANITIZE_SET", f"{OWN};uri=spiffe://td/client", None),
        ("ALWAYS_FORWARD_ONLY", SENT, SENT),
    ],
)
def test_what_upstreams_are_told_of_clients(
    mode: str, with_certificate: str | None, without: str | None, tmp_path: Path
) -> None:
    async def told(client: Client, **headers: str) -> str | None:
        found = {field_of((await client.get("/", **headers))[1], b"x-forwarded-client-cert") for _ in range(ENOUGH)}
        assert len(found) == 1
        value = found.pop()
        return None if value is None else value.decode()

    async def main() -> None:
        async with upstream() as service:
            details = {"forward_client_cert_details": mode, "set_current_client_cert_details": {"uri": True}}
            one = http_listener("one", 0, [to_cluster("up")], **details)
            one = secured(one, common={"validation_context": trusted()})
            async with serving(one, clusters=[cluster("up", service.port)]) as server:
                port = server.address("one")[1]
                async with connected(port, client_context(written(tmp_path, CLIENT))) as client:
                    assert await told(client, x_forwarded_client_cert=SENT) == with_certificate
                    alone = f"{OWN};uri=spiffe://td/client" if mode in ("APPEND_FORWARD", "SANITIZE_SET") else None
                    assert await told(client) == alone
                async with connected(port, client_context()) as client:
                    assert await told(client, x_forwarded_client_cert=SENT) == without
                    assert await told(client) is None
                other = AUTHORITY.issue("other", ["spiffe://td/other"])
                async with connected(port, client_context(written(tmp_path, other, "other"))) as client:
                    whose = f"by=spiffe://td/server;hash={other.sha256};uri=spiffe://td/other"
                    assert await told(client) == (None if alone is None else whose)
                assert server.stack is not None
                assert any(server.stack.managers[0].lane.kinds.values())  # it took part in this

    run(main())


def test_rbac_by_the_uri_in_the_certificate(tmp_path: Path) -> None:
    principal = {"authenticated": {"principal_name": {"exact": "spiffe://td/client"}}}
    rules = {"action": "ALLOW", "policies": {"p": {"permissions": [{"any": True}], "principals": [principal]}}}
    one = mutual(http_listener("one", 0, [direct("hello")]))
    manager = one["filter_chains"][0]["filters"][0]["typed_config"]
    rbac = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
    manager["http_filters"] = [{"name": "rbac", "typed_config": {"@type": rbac, "rules": rules}}, *manager["http_filters"]]
    stranger = AUTHORITY.issue("other", ["spiffe://td/other"])

    async def main() -> None:
        async with serving(one) as server:
            for certificate, expected in ((CLIENT, 200), (stranger, 403), (CLIENT, 200)):
                context = client_context(written(tmp_path, certificate))
                async with connected(server.address("one")[1], context) as client:
                    for _ in range(ENOUGH):
                        assert (await client.get())[0] == expected

    run(main())


def test_network_rbac_waits_for_the_handshake(tmp_path: Path) -> None:
    principal = {"authenticated": {"principal_name": {"prefix": "spiffe://td/cl"}}}
    rules = {"action": "DENY", "policies": {"p": {"permissions": [{"any": True}], "principals": [principal]}}}
    one = secured(http_listener("one", 0, [direct("hello")]), common={"validation_context": trusted()})
    kind = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC"
    rbac = {"name": "rbac", "typed_config": {"@type": kind, "rules": rules, "stat_prefix": "judge"}}
    one["filter_chains"][0]["filters"].insert(0, rbac)

    async def main() -> None:
        async with serving(one) as server:
            port = server.address("one")[1]
            async with connected(port, client_context()) as nobody:
                assert await nobody.get() == (200, b"hello")
            async with connected(port, client_context(written(tmp_path, CLIENT))) as client:
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await client.get()
            numbers = counted(server)
            assert (numbers["judge.rbac.allowed"], numbers["judge.rbac.denied"]) == (1, 1)

    run(main())


def test_a_virtual_host_that_requires_tls() -> None:
    async def main() -> None:
        listeners = [http_listener("plain", 0, [direct("hello")]), secured(http_listener("tls", 0, [direct("hello")]))]
        for listener in listeners:
            manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
            manager["route_config"]["virtual_hosts"][0]["require_tls"] = "ALL"
        async with serving(*listeners) as server:
            async with connected(server.address("plain")[1], None) as client:
                assert (await client.get())[0] == 301
            async with connected(server.address("tls")[1], client_context()) as client:
                assert await client.get() == (200, b"hello")

    run(main())


def test_files_are_rotated_and_no_connection_is_dropped(tmp_path: Path) -> None:
    chain, key = SERVER.write(tmp_path, "server")
    files = {"certificate_chain": {"filename": str(chain)}, "private_key": {"filename": str(key)}}
    one = secured(http_listener("one", 0, [direct("hello")]), common={"tls_certificates": [files]})
    successor = AUTHORITY.issue("successor", ["server.example"])

    async def main() -> None:
        async with serving(one) as server:
            assert server.stack is not None
            port = server.address("one")[1]
            async with connected(port, client_context(names=True)) as before:
                assert await before.get() == (200, b"hello")
                key.write_bytes(successor.key_pem)
                server.stack.tls.watcher.look()  # the key alone: refused, the last good pair stays
                async with connected(port, client_context(names=True)) as between:
                    assert between.shown == SERVER.der
                chain.write_bytes(successor.pem)
                server.stack.tls.watcher.look()
                async with connected(port, client_context(names=True)) as after:
                    assert after.shown == successor.der
                    assert await after.get() == (200, b"hello")
                assert before.shown == SERVER.der
                assert await before.get() == (200, b"hello")

    run(main())


def test_static_secrets_by_name() -> None:
    secrets = [
        {"name": "own", "tls_certificate": inline(SERVER)},
        {"name": "roots", "validation_context": trusted()},
    ]
    one = http_listener("one", 0, [direct("hello")])
    common = {
        "tls_certificates": [],
        "tls_certificate_sds_secret_configs": [{"name": "own"}],
        "validation_context_sds_secret_config": {"name": "roots"},
    }
    one = secured(one, common=common)

    async def main() -> None:
        async with (
            serving(one, secrets=secrets) as server,
            connected(server.address("one")[1], client_context(names=True)) as client,
        ):
            assert await client.get() == (200, b"hello")

    run(main())


def test_a_secret_that_is_not_there_is_refused() -> None:
    common = {"tls_certificates": [], "tls_certificate_sds_secret_configs": [{"name": "nowhere"}]}
    with pytest.raises(ConfigurationError, match="there is no TLS certificate secret called 'nowhere'"):
        serving(secured(http_listener("one", 0, [direct("hello")]), common=common))


@pytest.mark.parametrize("side", ["listener", "cluster"])
def test_certificates_that_cannot_be_used_stop_the_start(side: str) -> None:
    wrong = Certificate(SERVER.certificate, CLIENT.key)
    listener = http_listener("one", 0, [direct("hello")])
    clusters = []
    if side == "listener":
        secured(listener, wrong)
        place = r"static_resources\.listeners\[0\]\.filter_chains\[0\]\.transport_socket\.typed_config"
    else:
        clusters = [originating(cluster("up", 1), wrong)]
        place = r"static_resources\.clusters\[0\]\.transport_socket\.typed_config"

    async def main() -> None:
        with pytest.raises(ConfigurationError, match=place + ".*the key does not belong to the certificate"):
            await serving(listener, clusters=clusters).start()

    run(main())


VERIFY_FAILED = (
    "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:"
)
UNVERIFIED = VERIFY_FAILED + "_X509_verify_cert:_certificate_verification_error_at_depth_0:"


@pytest.mark.parametrize(
    ("certificate", "validation", "words", "counter"),
    [
        (STRANGERS.issue("server", ["server.example"]), trusted(), UNVERIFIED, "fail_verify_error"),
        (AUTHORITY.issue("server", ["server.example"], days=(-3, -2)), trusted(),
         f"{UNVERIFIED}_certificate_has_expired:TLS_error_end", "fail_verify_error"),
        (SERVER, trusted(match_typed_subject_alt_names=[{"san_type": "DNS", "matcher": {"exact": "elsewhere"}}]),
         VERIFY_FAILED, "fail_verify_san"),
    ],
    ids=["stranger", "expired", "name"],
)  # fmt: skip
def test_wrong_certificates_of_endpoints(
    certificate: Certificate, validation: dict[str, Any], words: str, counter: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    one = with_format(
        http_listener("one", 0, [to_cluster("up")], log=str(log)),
        "%RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n",
    )

    async def main() -> None:
        async with upstream(server_context(tmp_path, certificate)) as service:
            up = originating(cluster("up", service.port), validation=validation, sni="server.example")
            async with serving(one, clusters=[up]) as server:
                async with connected(server.address("one")[1], None) as client:
                    status, body = await client.get()
                assert status == 503
                assert body == (
                    b"upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
                )
                numbers = counted(server)
                assert numbers[f"cluster.up.ssl.{counter}"] == 1
                assert numbers["cluster.up.upstream_cx_connect_fail"] == 1
                assert not service.heads
        assert log.read_text().startswith(f"UF {words}")

    run(main())


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("TLSv1_2", "UF TLS_error:|268436496:SSL_routines:OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE:TLS_error_end"),
        ("TLSv1_3", "UC TLS_error:|268436572:SSL_routines:OPENSSL_internal:TLSV1_ALERT_CERTIFICATE_REQUIRED:TLS_error_end"),
    ],
)
def test_an_endpoint_that_wants_a_certificate_and_gets_none(version: str, line: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    one = with_format(
        http_listener("one", 0, [to_cluster("up")], log=str(log)),
        "%RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n",
    )

    async def main() -> None:
        async with serving(mutual(http_listener("there", 0, [direct("hello")]))) as there:
            up = originating(cluster("up", there.address("there")[1]), sni="server.example")
            parameters = {"tls_minimum_protocol_version": version, "tls_maximum_protocol_version": version}
            up["transport_socket"]["typed_config"]["common_tls_context"]["tls_params"] = parameters
            async with serving(one, clusters=[up]) as server, connected(server.address("one")[1], None) as client:
                assert (await client.get())[0] == 503
        assert log.read_text() == f"{line}\n"

    run(main())


def test_the_name_of_the_endpoint_is_the_server_name(tmp_path: Path) -> None:
    names: list[str] = []
    context = server_context(tmp_path)
    context.sni_callback = lambda ssl_object, name, context: names.append(name)

    async def main() -> None:
        async with upstream(context) as service:
            up = originating(cluster("up", service.port), auto_host_sni=True, auto_sni_san_validation=True)
            endpoint = up["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
            endpoint["hostname"] = "server.example"
            async with (
                serving(http_listener("one", 0, [to_cluster("up")]), clusters=[up]) as server,
                connected(server.address("one")[1], None) as client,
            ):
                assert (await client.get())[0] == 200
        assert names == ["server.example"]

    run(main())


def test_an_endpoint_that_speaks_no_tls(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream() as service:
            up = originating(cluster("up", service.port), sni="server.example") | {"connect_timeout": "0.2s"}
            async with serving(http_listener("one", 0, [to_cluster("up")]), clusters=[up]) as server:
                async with connected(server.address("one")[1], None) as client:
                    status, body = await client.get()
                assert status == 503
                assert b"reset reason: connection timeout" in body
                assert counted(server)["cluster.up.upstream_cx_connect_timeout"] == 1

    run(main())


def test_a_client_that_never_shakes_hands() -> None:
    one = secured(http_listener("one", 0, [direct("hello")]))
    one["filter_chains"][0]["transport_socket_connect_timeout"] = "0.05s"

    async def main() -> None:
        async with serving(one) as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.address("one")[1])
            assert await reader.read() == b""
            writer.close()
            name = "listener.127.0.0.1_0.downstream_cx_transport_socket_connect_timeout"
            assert counted(server)[name] == 1
            await until(lambda: server.stack is not None and not server.stack.connections())

    run(main())


FORMAT = (
    "%DOWNSTREAM_TLS_VERSION%|%DOWNSTREAM_PEER_URI_SAN%|%DOWNSTREAM_PEER_DNS_SAN%|%DOWNSTREAM_PEER_SUBJECT%"
    "|%DOWNSTREAM_PEER_ISSUER%|%DOWNSTREAM_PEER_FINGERPRINT_256%|%DOWNSTREAM_LOCAL_SUBJECT%|%DOWNSTREAM_LOCAL_IP_SAN%"
    "|%DOWNSTREAM_PEER_CERT_V_END(%Y-%m-%d)%|%DOWNSTREAM_TRANSPORT_FAILURE_REASON%|%DOWNSTREAM_PEER_EMAIL_SAN%\n"
)


def test_what_logs_say_of_the_connection(tmp_path: Path) -> None:
    log = tmp_path / "log"
    one = mutual(with_format(http_listener("one", 0, [direct("hello")], log=str(log)), FORMAT))
    end = CLIENT.certificate.not_valid_after_utc.strftime("%Y-%m-%d")

    async def main() -> None:
        async with (
            serving(one) as server,
            connected(server.address("one")[1], client_context(written(tmp_path, CLIENT))) as client,
        ):
            await client.get()
        assert log.read_text() == (
            f"TLSv1.3|spiffe://td/client|client.example|CN=client|CN=Test Root|{CLIENT.sha256}|CN=server|127.0.0.1"
            f"|{end}|-|-\n"
        )

    run(main())


def test_certificates_in_the_administration_interface(tmp_path: Path) -> None:
    own_one = AUTHORITY.issue("server", ["spiffe://td/server", "server.example", "127.0.0.1"], days=(-1, 3.5))
    chain, key = own_one.write(tmp_path, "server")
    serial = f"{own_one.certificate.serial_number:x}"
    files = {"certificate_chain": {"filename": str(chain)}, "private_key": {"filename": str(key)}}
    one = secured(
        http_listener("one", 0, [direct("hello")]),
        common={"tls_certificates": [files], "validation_context": trusted()},
    )

    async def main() -> None:
        async with serving(one, secrets=[{"name": "inline", "tls_certificate": inline(CLIENT)}]) as server:
            page = json.loads((await asyncio.to_thread(get, server.admin_address[1], "/certs"))[2])
            (context,) = page["certificates"]
            (authority,), (own,) = context["ca_cert"], context["cert_chain"]
            assert authority["path"] == "<inline>"
            assert authority["days_until_expiration"] == "29"
            assert own == {
                "path": str(chain),
                "serial_number": serial if len(serial) % 2 == 0 else f"0{serial}",
                "subject_alt_names": [
                    {"dns": "server.example"}, {"uri": "spiffe://td/server"}, {"ip_address": "127.0.0.1"},
                ],
                "days_until_expiration": "3",
                "valid_from": own_one.certificate.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "expiration_time": own_one.certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }  # fmt: skip
            assert counted(server)["server.days_until_first_cert_expiring"] == 3
            dump = (await asyncio.to_thread(get, server.admin_address[1], "/config_dump"))[2]
            assert "DownstreamTlsContext" in dump
            assert "PRIVATE KEY" not in dump

    run(main())


def tcp_listener(name: str, cluster_name: str, log: str = "") -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    proxy = {"@type": kind, "stat_prefix": name, "cluster": cluster_name}
    listener = {
        "name": name, "address": address(0), "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}],
    }  # fmt: skip
    if log:
        listener["access_log"] = [file_log(log, "%BYTES_RECEIVED% %BYTES_SENT%\n")]
    return listener


async def until_eof_then_double(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads to the end, and answers only then: the answer comes through a connection that is half closed."""
    writer.write((await reader.read()) * 2)
    writer.close()


AMOUNT = 300_000


def test_tcp_proxy_with_tls_on_both_sides_and_half_close(tmp_path: Path) -> None:
    async def main() -> None:
        inner = await asyncio.start_server(until_eof_then_double, "127.0.0.1", 0)
        port = inner.sockets[0].getsockname()[1]
        log = tmp_path / "log"
        there = secured(tcp_listener("there", "plain", str(log)))
        async with serving(there, clusters=[cluster("plain", port)]) as second:
            up = originating(cluster("tls", second.address("there")[1]), sni="server.example")
            async with serving(tcp_listener("here", "tls"), clusters=[up]) as first:
                reader, writer = await asyncio.open_connection("127.0.0.1", first.address("here")[1])
                writer.write(b"x" * AMOUNT)
                writer.write_eof()
                assert len(await reader.read()) == 2 * AMOUNT
                writer.close()
                await until(lambda: first.stack is not None and not first.stack.connections())
                await until(lambda: second.stack is not None and not second.stack.connections())
                assert counted(second)["tcp.there.downstream_cx_rx_bytes_total"] == AMOUNT
                assert counted(second)["listener.127.0.0.1_0.ssl.handshake"] == 1
                assert counted(first)["cluster.tls.ssl.handshake"] == 1
        assert log.read_text() == f"{AMOUNT} {2 * AMOUNT}\n"
        inner.close()

    run(main())


def test_tcp_proxy_to_an_endpoint_with_a_wrong_certificate(tmp_path: Path) -> None:
    async def main() -> None:
        async with upstream(server_context(tmp_path, STRANGERS.issue("server"))) as service:
            up = originating(cluster("tls", service.port), sni="server.example")
            async with serving(tcp_listener("here", "tls"), clusters=[up]) as server:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.address("here")[1])
                assert await reader.read() == b""
                writer.close()
                numbers = counted(server)
                assert numbers["cluster.tls.upstream_cx_connect_fail"] == 1
                assert numbers["cluster.tls.ssl.fail_verify_error"] == 1

    run(main())


def test_draining_closes_tls_connections_after_their_request() -> None:
    async def main() -> None:
        async with (
            serving(secured(http_listener("one", 0, [direct("hello")]))) as server,
            connected(server.address("one")[1], client_context()) as client,
        ):
            assert (await client.get())[0] == 200
            server.drain_listeners()
            assert (await client.get())[0] == 200
            assert await client.reader.read() == b""

    run(main())


def test_a_failed_health_check_asks_tls_clients_to_close() -> None:
    async def main() -> None:
        async with (
            serving(secured(http_listener("one", 0, [direct("hello")]))) as server,
            connected(server.address("one")[1], client_context()) as client,
        ):
            assert (await client.get())[0] == 200
            await asyncio.to_thread(post, server.admin_address[1], "/healthcheck/fail")
            assert (await client.get())[0] == 200
            assert await client.reader.read() == b""

    run(main())


@needs_curl
def test_curl(tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(AUTHORITY.pem)
    certificate, key = written(tmp_path, CLIENT)

    async def main() -> None:
        async with serving(mutual(http_listener("one", 0, [direct("hello")]))) as server:
            port = server.address("one")[1]

            def curl(*options: str) -> tuple[int, str]:
                command = [str(CURL), "-sS", "--max-time", "10", "--cacert", str(roots), *options,
                           "--resolve", f"server.example:{port}:127.0.0.1",
                           f"https://server.example:{port}/", f"https://server.example:{port}/2"]  # fmt: skip
                done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
                return done.returncode, done.stdout

            both = ("--cert", certificate, "--key", key)
            assert await asyncio.to_thread(curl, *both) == (0, "hellohello")
            assert await asyncio.to_thread(curl, *both, "--tls-max", "1.2") == (0, "hellohello")
            status, _ = await asyncio.to_thread(curl)
            assert status != 0

    run(main())


@needs_openssl
def test_openssl_as_the_client_and_as_the_server(tmp_path: Path) -> None:
    chain, key = written(tmp_path, SERVER, "server")

    async def main() -> None:
        one = secured(http_listener("one", 0, [direct("hello")]))
        async with serving(one) as server:
            client = await asyncio.create_subprocess_exec(
                str(OPENSSL), "s_client", "-quiet", "-connect", f"127.0.0.1:{server.address('one')[1]}",
                "-servername", "server.example", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
            answer, _ = await client.communicate(request)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"hello")
        service = await asyncio.create_subprocess_exec(
            str(OPENSSL), "s_server", "-accept", "127.0.0.1:0", "-cert", chain, "-key", key, "-www",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert service.stdout is not None
            line = b""
            while not line.startswith(b"ACCEPT"):
                line = await service.stdout.readline()
            port = int(line.rpartition(b":")[2])
            up = originating(cluster("up", port), sni="server.example")
            async with serving(http_listener("one", 0, [to_cluster("up")]), clusters=[up]) as server:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.address("one")[1])
                writer.write(request)
                answer = await reader.read()
                writer.close()
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                assert b"s_server" in answer
        finally:
            service.kill()
            await service.wait()

    run(main())


def test_two_authorities_are_told_apart(tmp_path: Path) -> None:
    other = Authority("Test Root")  # of the same name

    async def main() -> None:
        async with serving(mutual(http_listener("one", 0, [direct("hello")]))) as server:
            context = client_context(written(tmp_path, other.issue("client", ["spiffe://td/client"])))
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                async with connected(server.address("one")[1], context) as client:
                    await client.get()

    run(main())


def test_a_chain_may_have_a_default_beside_it() -> None:
    one = http_listener("one", 0, [direct("plain")])
    one["default_filter_chain"] = http_listener("other", 0, [direct("secure")])["filter_chains"][0]
    one["default_filter_chain"]["transport_socket"] = downstream_socket()
    one["filter_chains"][0]["filter_chain_match"] = {"source_prefix_ranges": [
        {"address_prefix": "192.0.2.0", "prefix_len": 24}
    ]}  # fmt: skip

    async def main() -> None:
        async with (
            serving(one) as server,
            connected(server.address("one")[1], client_context()) as client,
        ):
            assert await client.get() == (200, b"secure")

    run(main())
