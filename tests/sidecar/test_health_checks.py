"""Active health checks of the whole sidecar: real nginx and grpcio servers as hosts, TLS, alternate ports, connections."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from sidecar.server import Server
from tests.running import get
from tests.sidecar.bootstraps import address, bootstrap, cluster, http_listener, to_cluster
from tests.sidecar.tls_bootstraps import counted, originating, run, server_context, until
from tests.sidecar.transport.serving import SERVER

Document = dict[str, Any]
SINK = "type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink"
TCP_PROXY = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
HTTP2: Document = {"http2_protocol_options": {}}
NEEDS_NGINX = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")


def checked(made: Document, how: Document, log: Path | None = None, **fields: Any) -> Document:
    """A cluster that is checked often."""
    check = {
        "timeout": "0.5s",
        "interval": "0.05s",
        "no_traffic_interval": "0.05s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 2,
        **how,
        **fields,
    }
    if log is not None:
        check["event_logger"] = [{"name": "file", "typed_config": {"@type": SINK, "event_log_path": str(log)}}]
    return {**made, "health_checks": [check]}


def web(path: str = "/health", **fields: Any) -> Document:
    return {"http_health_check": {"path": path, **fields}}


def over(*clusters: Document, admin: int | None = 0) -> Server:
    return Server(bootstrap(http_listener("one", 0, [to_cluster("up")]), clusters=clusters, admin=admin))


def flags(server: Server, name: str = "up") -> list[str]:
    assert server.stack is not None
    found = server.stack.clusters.get(name)
    assert found is not None
    return [host.health_flags() for host in found.hosts]


async def ask(server: Server, path: str = "/") -> int:
    return (await asyncio.to_thread(get, server.address("one")[1], path))[0]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


class Script:
    """A web server that answers health checks as it is told, and remembers what it was asked and over how many connections."""

    def __init__(self) -> None:
        self.status = 200
        self.fields = ""
        self.heads: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(f"HTTP/1.1 {self.status} X\r\ncontent-length: 2\r\n{self.fields}\r\nok".encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@asynccontextmanager
async def scripted(context: ssl.SSLContext | None = None) -> AsyncIterator[Script]:
    script = Script()
    server = await asyncio.start_server(script.serve, "0.0.0.0", 0, ssl=context)
    script.port = server.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        server.close()


@asynccontextmanager
async def nginx(folder: Path, port: int) -> AsyncIterator[None]:
    config = folder / f"nginx{port}.conf"
    config.write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;"
        f" fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f" server {{ listen 127.0.0.1:{port}; location /health {{ return 200 'well'; }} location / {{ return 200 'hello'; }}"
        f" location /ill {{ return 503; }} }} }}\n"
    )
    process = await asyncio.create_subprocess_exec("nginx", "-c", str(config), "-p", str(folder))

    def up() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        await until(up)
        yield
    finally:
        process.terminate()
        await process.wait()


@NEEDS_NGINX
def test_nginx_that_goes_and_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        made = checked(cluster("up", port), web(receive=[{"text": b"well".hex()}]), tmp_path / "events")
        async with nginx(tmp_path, port), over(made) as server:
            assert flags(server) == ["healthy"], "the listeners wait for the first check"
            assert await ask(server) == 200
            await until(lambda: counted(server)["cluster.up.health_check.success"] >= 3)
        async with over(made) as server:
            assert flags(server) == ["/failed_active_hc"]
            async with nginx(tmp_path, port):
                await until(lambda: flags(server) == ["healthy"])
                assert await ask(server) == 200
            await until(lambda: flags(server) == ["/failed_active_hc"])
        lines = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
        told = [next(key for key in line if key.endswith("_event")) for line in lines]
        assert told == [
            "add_healthy_event", "health_check_failure_event", "add_healthy_event", "eject_unhealthy_event"
        ]  # fmt: skip
        assert lines[3]["eject_unhealthy_event"]["failure_type"] == "NETWORK"

    run(main())


@NEEDS_NGINX
def test_nginx_that_answers_wrongly(tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        ill = checked(cluster("ill", port), web("/ill"))
        wrong = checked(cluster("wrong", port), web(receive=[{"text": b"ill".hex()}]))
        expected = checked(cluster("expected", port), web("/ill", expected_statuses=[{"start": 500, "end": 504}]))
        by_tcp = checked(
            cluster("tcp", port),
            {
                "tcp_health_check": {
                    "send": {"text": b"GET / HTTP/1.0\r\n\r\n".hex()},
                    "receive": [{"text": b"hello".hex()}],
                }
            },
        )
        async with nginx(tmp_path, port), over(cluster("up", port), ill, wrong, expected, by_tcp) as server:
            assert [flags(server, name)[0] for name in ("ill", "wrong", "expected", "tcp")] == [
                "/failed_active_hc", "/failed_active_hc", "healthy", "healthy"
            ]  # fmt: skip

    run(main())


class Health(grpc.GenericRpcHandler):
    """`grpc.health.v1.Health`, whose answers are made by hand: 1 is SERVING."""

    def __init__(self) -> None:
        self.answers = {b"": b"\x08\x01", b"\x0a\x03one": b"\x08\x01", b"\x0a\x03two": b"\x08\x02"}
        self.metadata: list[dict[str, Any]] = []

    def service(self, details: Any) -> Any:
        if details.method != "/grpc.health.v1.Health/Check":
            return None
        self.metadata.append(dict(details.invocation_metadata))
        return grpc.unary_unary_rpc_method_handler(self.check)

    def check(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        answer = self.answers.get(message)
        if answer is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        assert answer is not None
        return answer


@contextmanager
def grpc_server(health: Health, secure: bool = False) -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[health])
    if secure:
        credentials = grpc.ssl_server_credentials([(SERVER.key_pem, SERVER.pem)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None)


def test_grpcio_servers() -> None:
    async def main() -> None:
        health = Health()
        with grpc_server(health) as port:
            made = {**cluster("up", port), **HTTP2}
            metadata = [{"header": {"key": "x-a", "value": "b"}}]
            clusters = [
                checked({**made, "name": name}, {"grpc_health_check": {"service_name": service, **more}})
                for name, service, more in (
                    ("up", "", {"authority": "h.test", "initial_metadata": metadata}),
                    ("one", "one", {}),
                    ("two", "two", {}),
                    ("none", "none", {}),
                )
            ]
            async with over(*clusters) as server:
                assert [flags(server, name)[0] for name in ("up", "one", "two", "none")] == [
                    "healthy", "healthy", "/failed_active_hc", "/failed_active_hc"
                ]  # fmt: skip
                health.answers[b""] = b"\x08\x02"
                health.answers[b"\x0a\x03two"] = b"\x08\x01"
                await until(lambda: flags(server)[0] != "healthy" and flags(server, "two")[0] == "healthy")
                found = counted(server)
                assert "cluster.up.health_check.network_failure" not in found
                assert "cluster.up.upstream_cx_total" not in found, "their connections are their own"
        seen = next(one for one in health.metadata if one.get("x-a") == "b")
        assert seen["user-agent"].startswith("Envoy/HC")

    run(main())


def test_grpcio_servers_over_tls() -> None:
    async def main() -> None:
        with grpc_server(Health(), secure=True) as port:
            made = {**originating(cluster("up", port)), **HTTP2}
            async with over(checked(made, {"grpc_health_check": {"service_name": "one"}})) as server:
                assert flags(server) == ["healthy"]
                assert counted(server)["cluster.up.ssl.handshake"] == 1

    run(main())


def test_grpc_hosts_that_do_not_answer() -> None:
    async def main() -> None:
        health = Health()
        never = threading.Event()
        remaining: list[float] = []

        def check(message: bytes, context: Any) -> bytes:
            remaining.append(context.time_remaining())
            while context.is_active():
                never.wait(0.01)
            return b""

        health.check = check  # type: ignore[method-assign]
        with grpc_server(health) as port:
            made = checked({**cluster("up", port), **HTTP2}, {"grpc_health_check": {}}, timeout="0.2s")
            async with over(made) as server:
                assert flags(server)[0].startswith("/failed_active_hc"), "whoever of the two notices first"
                assert 0 < remaining[0] <= 0.2

    run(main())


def test_http2_checks_and_connections_that_are_kept_or_not() -> None:
    async def main() -> None:
        async with scripted() as kept, scripted() as fresh:
            clusters = [
                checked(cluster("up", kept.port), web()),
                checked(cluster("fresh", fresh.port), web(), reuse_connection=False),
                checked(cluster("other", fresh.port), web(codec_client_type="HTTP2")),
            ]
            async with over(*clusters) as server:
                await until(lambda: len(kept.heads) > 5 and len(fresh.heads) > 5)
                assert flags(server) == flags(server, "fresh") == ["healthy"]
                assert flags(server, "other") == ["/failed_active_hc"], "it does not speak HTTP/2"
                assert kept.connections == 1
                asked = [head for head in fresh.heads if head.startswith(b"GET")]
                assert fresh.connections > len(asked) > 4
                assert b"GET /health HTTP/1.1\r\nhost: up\r\nuser-agent: Envoy/HC\r\n\r\n" in kept.heads

    run(main())


def test_checks_over_tls_with_a_name_and_protocols_of_their_own(tmp_path: Path) -> None:
    async def main() -> None:
        context = server_context(tmp_path)
        context.set_alpn_protocols(["health", "http/1.1"])
        agreed: list[str | None] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            agreed.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            writer.close()

        listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = listening.sockets[0].getsockname()[1]
        async with scripted() as plain:
            secure = checked(originating(cluster("up", port)), web(), tls_options={"alpn_protocols": ["health"]})
            usual = checked(originating(cluster("usual", port)), web())
            unsafe = checked(originating(cluster("unsafe", plain.port)), web())
            match = {"name": "plain", "match": {"tls": False}}
            raw = {"name": "raw", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}  # fmt: skip
            chosen = checked(
                {
                    **originating(cluster("chosen", plain.port)),
                    "transport_socket_matches": [{**match, "transport_socket": raw}],
                },
                web(),
                transport_socket_match_criteria={"tls": False},
            )
            async with over(secure, usual, unsafe, chosen) as server:
                names = ("up", "usual", "unsafe", "chosen")
                assert [flags(server, name)[0].partition("/active")[0] for name in names] == [
                    "healthy", "healthy", "/failed_active_hc", "healthy"
                ]  # fmt: skip
                assert set(agreed) == {"health", None}
                assert counted(server)["cluster.up.ssl.handshake"] >= 1
        listening.close()

    run(main())


def test_another_port_another_name_or_none() -> None:
    async def main() -> None:
        async with scripted() as script, scripted() as elsewhere:
            made = cluster("up", script.port)
            endpoints = [
                {"endpoint": {"address": address(script.port), "health_check_config": config}}
                for config in (
                    {"port_value": elsewhere.port, "hostname": "there"},
                    {"address": {"socket_address": {"address": "127.0.0.1", "port_value": elsewhere.port}}},
                    {"disable_active_health_check": True},
                    {"port_value": free_port()},
                )
            ]
            made["load_assignment"]["endpoints"] = [{"lb_endpoints": endpoints}]
            async with over(checked(made, web(host="configured"))) as server:
                assert flags(server) == ["healthy", "healthy", "healthy", "/failed_active_hc"]
                assert script.heads == []
                assert {head.split(b"\r\n")[1] for head in elsewhere.heads} == {b"host: there", b"host: configured"}
                assert counted(server)["cluster.up.health_check.healthy"] == 2
                dump = json.loads(
                    (await asyncio.to_thread(get, server.admin_address[1], "/config_dump?include_eds"))[2]
                )
                shown = next(one for one in dump["configs"] if one["@type"].endswith("EndpointsConfigDump"))
                first = shown["static_endpoint_configs"][0]["endpoint_config"]["endpoints"][0]["lb_endpoints"][0]
                assert first["endpoint"]["health_check_config"] == {"port_value": elsewhere.port, "hostname": "there"}

    run(main())


def test_a_response_that_takes_its_host_out() -> None:
    async def main() -> None:
        async with scripted() as first, scripted() as second:
            made = cluster("up", first.port)
            made["load_assignment"]["endpoints"][0]["lb_endpoints"].append(
                {"endpoint": {"address": address(second.port)}}
            )
            made = checked(made, web(), interval="60s", no_traffic_interval="60s", healthy_threshold=1)
            async with over(made) as server:
                assert flags(server) == ["healthy", "healthy"]
                first.fields = "x-envoy-immediate-health-check-fail: true\r\n"
                asked = len(first.heads)
                while len(first.heads) == asked:
                    await ask(server)
                out = "/failed_active_hc/excluded_via_immediate_hc_fail"
                await until(lambda: flags(server) == [out, "healthy"])
                await until(lambda: counted(server).get("cluster.up.membership_excluded") == 1)
                asked = len(first.heads)
                for _ in range(10):
                    assert await ask(server) == 200
                assert len(first.heads) == asked
                assert counted(server)["cluster.up.health_check.passive_failure"] == 1
                page = json.loads((await asyncio.to_thread(get, server.admin_address[1], "/clusters?format=json"))[2])
                status = page["cluster_statuses"][0]["host_statuses"][0]["health_status"]
                assert status == {
                    "failed_active_health_check": True,
                    "eds_health_status": "HEALTHY",
                    "excluded_via_immediate_hc_fail": True,
                }

    run(main())


@pytest.mark.parametrize("closes", [True, False])
def test_tcp_sessions_of_a_host_that_fails(closes: bool) -> None:
    async def main() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        listening = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with scripted() as script:
            made = cluster("up", listening.sockets[0].getsockname()[1])
            endpoint = made["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
            endpoint["health_check_config"] = {"port_value": script.port}
            made["close_connections_on_host_health_failure"] = closes
            proxy = {"@type": TCP_PROXY, "stat_prefix": "tcp", "cluster": "up"}
            chain = {"filters": [{"name": "tcp", "typed_config": proxy}]}
            listener = {"name": "one", "address": address(0), "filter_chains": [chain]}
            async with Server(bootstrap(listener, clusters=(checked(made, web()),))) as server:
                reader, writer = await asyncio.open_connection(*server.address("one"))
                writer.write(b"hello")
                assert await reader.read(100) == b"hello"
                script.status = 503
                await until(lambda: flags(server) == ["/failed_active_hc"])
                if closes:
                    assert await reader.read() == b""
                else:
                    writer.write(b"again")
                    assert await reader.read(100) == b"again"
                writer.close()
        listening.close()

    run(main())


def test_a_cluster_without_checks_loads_nothing_for_them() -> None:
    code = (
        "import asyncio, sys\n"
        "from sidecar.server import Server\n"
        "from tests.sidecar.bootstraps import bootstrap, cluster, http_listener, to_cluster\n"
        "async def main():\n"
        "    async with Server(bootstrap(http_listener('one', 0, [to_cluster('up')]), clusters=(cluster('up', 1),))):\n"
        "        print(sorted({'sidecar.health_stack', 'sidecar.config.health_check'} & sys.modules.keys()))\n"
        "asyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_eleven_hundred_hosts_are_all_checked_before_it_begins() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("not enough descriptors")

    async def main() -> None:
        async with scripted() as script:
            endpoints = [
                {"endpoint": {"address": {"socket_address": {"address": f"127.0.{number // 250}.{number % 250 + 1}",
                                                             "port_value": script.port}}}}
                for number in range(1100)
            ]  # fmt: skip
            made = cluster("up", script.port)
            made["load_assignment"]["endpoints"] = [{"lb_endpoints": endpoints}]
            rarely = {"interval": "60s", "no_traffic_interval": "60s", "timeout": "20s", "reuse_connection": False}
            async with over(checked(made, web(), **rarely), admin=None) as server:
                assert set(flags(server)) == {"healthy"}

    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    try:
        run(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("ignored", [True, False])
def test_hosts_that_names_bring_may_not_count_before_their_first_check(ignored: bool) -> None:
    async def main() -> None:
        never = asyncio.Event()

        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await never.wait()
            writer.close()

        listening = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        made = {
            **cluster("up", listening.sockets[0].getsockname()[1]),
            "type": "STRICT_DNS",
            "common_lb_config": {"ignore_new_hosts_until_first_hc": ignored},
        }
        sidecar = over(checked(made, web(), timeout="0.3s"))
        starting = asyncio.create_task(sidecar.start())
        await until(lambda: sidecar.stack is not None and flags(sidecar))
        assert flags(sidecar) == ["/failed_active_hc/pending_active_hc" if ignored else "/failed_active_hc"]
        assert sidecar.stack is not None
        found = sidecar.stack.clusters.get("up")
        assert found is not None and found.host_sets[0].excluded == ignored
        await starting
        assert flags(sidecar) == ["/failed_active_hc/active_hc_timeout"]
        assert found.host_sets[0].excluded == 0
        await sidecar.stop()
        never.set()
        listening.close()

    run(main())
