"""The whole sidecar and endpoints behind TLS, good ones and bad ones, for HTTP and for `tcp_proxy`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.sidecar.bootstraps import address, cluster, direct, http_listener, to_cluster
from tests.sidecar.tls_bootstraps import (
    connected,
    counted,
    file_log,
    mutual,
    originating,
    run,
    secured,
    server_context,
    serving,
    until,
    upstream,
    with_format,
)
from tests.sidecar.transport.certificates import Certificate
from tests.sidecar.transport.serving import (
    AUTHORITY,
    SERVER,
    STRANGERS,
    trusted,
)

VERIFY_FAILED = "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:"
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
        (
            "TLSv1_2",
            "UF TLS_error:|268436496:SSL_routines:OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE:TLS_error_end",
        ),
        (
            "TLSv1_3",
            "UC TLS_error:|268436572:SSL_routines:OPENSSL_internal:TLSV1_ALERT_CERTIFICATE_REQUIRED:TLS_error_end",
        ),
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
