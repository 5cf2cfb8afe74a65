"""The Python API: a sidecar in a running loop, from a dict, a path or a message, more than one, and again."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import ParseDict

from sidecar import Server
from sidecar.config.problems import ConfigurationError
from tests.running import free_ports, get, is_free
from tests.sidecar.bootstraps import bootstrap, cluster, direct, http_listener, to_cluster


def message(config: dict[str, Any]) -> Any:
    from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
    from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401 - so that the Any can be read
    from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401

    return ParseDict(config, Bootstrap())


def as_path(config: dict[str, Any], folder: Path) -> Path:
    path = folder / "envoy.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize(
    "given",
    [
        lambda config, folder: config,
        lambda config, folder: message(config),
        as_path,
        lambda config, folder: str(as_path(config, folder)),
    ],
    ids=["dict", "message", "path", "str"],
)
def test_each_kind_of_configuration(given: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    async def serve() -> None:
        async with Server(given(bootstrap(http_listener("one", 0, [direct("hello")])), tmp_path)) as server:
            host, port = server.address("one")
            assert host == "127.0.0.1"
            assert port > 0
            assert (await asyncio.to_thread(get, port))[2] == "hello"
            assert server.state == "LIVE"
        assert is_free(port)
        assert server.state == "STOPPED"
        assert server.stopped.is_set()

    asyncio.run(serve())


def test_yaml_alone_and_over_a_dict() -> None:
    more = yaml.safe_dump(bootstrap(http_listener("two", 0, [direct("two")])))

    async def serve() -> None:
        async with Server(config_yaml=more) as server:
            assert (await asyncio.to_thread(get, server.address("two")[1]))[2] == "two"
        async with Server(bootstrap(http_listener("one", 0, [direct("one")])), config_yaml=more) as server:
            for name in ("one", "two"):
                assert (await asyncio.to_thread(get, server.address(name)[1]))[2] == name

    asyncio.run(serve())


def test_two_at_once_in_one_loop_one_behind_the_other() -> None:
    async def serve() -> None:
        async with Server(bootstrap(http_listener("inner", 0, [direct("inner")]))) as inner:
            behind = (cluster("inner", inner.address("inner")[1]),)
            async with Server(bootstrap(http_listener("outer", 0, [to_cluster("inner")]), clusters=behind)) as outer:
                status, headers, body = await asyncio.to_thread(get, outer.address("outer")[1])
                assert (status, body) == (200, "inner")
                assert "x-envoy-upstream-service-time" in headers
            assert (await asyncio.to_thread(get, inner.address("inner")[1]))[2] == "inner"

    asyncio.run(serve())


def test_one_after_the_other_on_the_same_port_and_the_same_server_again() -> None:
    (port,) = free_ports(1)

    async def serve() -> None:
        for text in ("first", "second"):
            async with Server(bootstrap(http_listener("one", port, [direct(text)]))) as server:
                assert (await asyncio.to_thread(get, port))[2] == text
        await server.start()
        assert (await asyncio.to_thread(get, port))[2] == "second"
        await server.stop()
        assert is_free(port)
        await server.stop()

    asyncio.run(serve())


def test_the_error_lists_everything_and_nothing_is_bound() -> None:
    (port,) = free_ports(1)
    config = bootstrap(http_listener("one", port, [to_cluster("nowhere")], no_such_field=1))
    config["flags_path"] = "/not/yet"
    with pytest.raises(ConfigurationError) as caught:
        Server(config)
    assert {problem.path.rpartition(".")[2] for problem in caught.value.problems} == {
        "cluster", "no_such_field", "flags_path",
    }  # fmt: skip
    assert len(str(caught.value).splitlines()) == 3
    assert is_free(port)


def test_a_message_of_another_type_is_a_mistake_in_the_caller() -> None:
    from envoy.config.cluster.v3.cluster_pb2 import Cluster

    with pytest.raises(TypeError, match="Bootstrap"):
        Server(Cluster())


def test_no_configuration() -> None:
    with pytest.raises(ConfigurationError, match="no configuration is given"):
        Server()


def test_an_empty_configuration() -> None:
    async def serve() -> None:
        async with Server({}) as server:
            assert server.state == "LIVE"
            with pytest.raises(KeyError):
                server.address("one")
            with pytest.raises(LookupError):
                _ = server.admin_address

    asyncio.run(serve())


def test_the_address_of_the_administration_interface() -> None:
    async def serve() -> None:
        async with Server(bootstrap(admin=0)) as server:
            host, port = server.admin_address
            assert host == "127.0.0.1"
            status, _, body = await asyncio.to_thread(get, port, "/ready")
            assert (status, body) == (200, "LIVE\n")

    asyncio.run(serve())


def test_a_port_in_use_leaves_nothing_behind() -> None:
    async def start() -> None:
        descriptors = len(os.listdir("/proc/self/fd"))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listeners = [
                http_listener("free", free_ports(1)[0], [direct("")]),
                http_listener("taken", taken.getsockname()[1], [direct("")]),
            ]
            server = Server(bootstrap(*listeners))
            with pytest.raises(OSError, match="listener 'taken' cannot listen on 127"):
                await server.start()
        assert server.state == "STOPPED"
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == descriptors
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(start())


def test_a_stop_leaves_neither_tasks_nor_descriptors() -> None:
    async def serve() -> None:
        descriptors = None
        for _ in range(5):  # the first one may leave what the process keeps: the resolver's library, a dev/null
            async with Server(bootstrap(http_listener("one", 0, [direct("hello")]))) as server:
                await asyncio.to_thread(get, server.address("one")[1])
                with socket.create_connection(server.address("one")):
                    await asyncio.sleep(0)
            gc.collect()
            now = len(os.listdir("/proc/self/fd"))
            assert descriptors is None or now == descriptors
            descriptors = now
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(serve())


def test_a_drain_lets_go_of_idle_connections_and_has_an_end() -> None:
    async def serve() -> None:
        config = bootstrap(http_listener("one", 0, [direct("hello")]))
        async with Server(config, drain_time=30) as server:
            reader, writer = await asyncio.open_connection(*server.address("one"))
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await reader.readuntil(b"hello")
            drain = asyncio.create_task(server.drain())
            await asyncio.sleep(0)
            assert server.state == "DRAINING"
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")  # it was on its way
            last = await reader.read()
            assert b"connection: close\r\n" in last
            assert last.endswith(b"hello")
            writer.close()
            await asyncio.wait_for(drain, 10)

    asyncio.run(serve())


def test_a_drain_is_given_up_after_its_time() -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    asked = asyncio.Event()

    async def serve() -> None:
        upstream = await asyncio.start_server(silence, "127.0.0.1", 0)
        clusters = (cluster("silent", upstream.sockets[0].getsockname()[1]),)
        config = bootstrap(http_listener("one", 0, [to_cluster("silent")]), clusters=clusters)
        async with upstream, Server(config) as server:
            reader, writer = await asyncio.open_connection(*server.address("one"))
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert server.stack is not None
            await asyncio.wait_for(asked.wait(), 10)
            await asyncio.wait_for(server.drain(timeout=0.1), 5)
            assert server.stack.connections() == 1
            await server.stop()
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()

    asyncio.run(serve())


def _post(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("POST", path)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(("query", "still_listens"), [("", False), ("?graceful&skip_exit", True), ("?graceful", True)])
def test_draining_by_the_administration_interface(query: str, still_listens: bool) -> None:
    async def serve() -> None:
        config = bootstrap(http_listener("one", 0, [direct("hello")]), admin=0)
        async with Server(config, drain_time=30, drain_strategy="immediate") as server:
            port = server.address("one")[1]
            assert await asyncio.to_thread(_post, server.admin_address[1], "/drain_listeners" + query) == 200
            assert is_free(port) is not still_listens
            if still_listens:
                _, headers, body = await asyncio.to_thread(get, port)
                assert (body, headers["connection"]) == ("hello", "close")

    asyncio.run(serve())


def test_its_name_says_its_state() -> None:
    server = Server({})
    assert repr(server) == "<Server PRE_INITIALIZING>"
