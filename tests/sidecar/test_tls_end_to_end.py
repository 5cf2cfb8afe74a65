"""The whole sidecar with TLS: real clients and servers on both sides of it."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from pathlib import Path

import pytest

from sidecar.config.problems import ConfigurationError
from tests.running import get
from tests.sidecar.bootstraps import cluster, direct, http_listener, to_cluster
from tests.sidecar.tls_bootstraps import (
    ENOUGH,
    client_context,
    connected,
    counted,
    downstream_socket,
    field_of,
    file_log,
    mutual,
    originating,
    run,
    secured,
    server_context,
    serving,
    upstream,
    with_format,
    written,
)
from tests.sidecar.transport.certificates import Certificate
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
            assert (
                'envoy_listener_ssl_versions{envoy_ssl_version="TLSv1.3",envoy_listener_address="127.0.0.1_0"} 1'
                in page
            )
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
