"""The codec with real programs: h2load, curl and nghttp as its clients, nghttpd as its server."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from pathlib import Path

import pytest

from sidecar.codec.http2_client import ClientConnection
from sidecar.codec.http2_options import Http2Options
from sidecar.core.head import RequestHead

from .http2_loopback import LARGE, TEXTS, Asking, Wire, serving

PATIENCE = 30


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


async def run(*command: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, out
    return out


def client_run(*command: str, options: Http2Options | None = None) -> bytes:
    """What a client prints that is run against our server; ``URL`` in its arguments is where that serves."""

    async def both() -> bytes:
        async with serving(options) as (port, wires):
            out = await run(*(word.replace("URL", f"http://127.0.0.1:{port}") for word in command))
            assert wires
            assert [wire.error for wire in wires if wire.error] == []
            assert all(not wire.connection.streams for wire in wires)
            return out

    return asyncio.run(both())


@needs("h2load")
@pytest.mark.parametrize(("connections", "streams"), [(1, 1), (8, 16), (2, 100)])
def test_h2load(connections: int, streams: int) -> None:
    out = client_run("h2load", "-n", "4000", "-c", str(connections), "-m", str(streams), "URL/a", "URL/b")
    assert b"4000 succeeded, 0 failed, 0 errored, 0 timeout" in out


@needs("h2load")
def test_h2load_with_bodies_both_ways(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"b" * 100_000)
    out = client_run("h2load", "-n", "200", "-c", "2", "-m", "10", "-d", str(body), "URL/echo")
    assert b"200 succeeded, 0 failed, 0 errored, 0 timeout" in out
    traffic = re.search(rb"traffic: .*?, ([0-9.]+)MB \(\d+\) data", out)
    assert traffic is not None
    assert float(traffic[1]) == pytest.approx(200 * 100_000 / (1 << 20), rel=0.01)


@needs("h2load")
def test_h2load_with_small_windows_and_large_answers() -> None:
    out = client_run("h2load", "-n", "50", "-c", "2", "-m", "5", "-w", "14", "-W", "15", "URL/large")
    assert b"50 succeeded, 0 failed, 0 errored, 0 timeout" in out


@needs("curl")
def test_curl(tmp_path: Path) -> None:
    quiet = ("curl", "-sS", "--http2-prior-knowledge", "-m", str(PATIENCE))
    out = client_run(*quiet, "-w", "%{http_version} %{http_code} %{size_download}\n", "-o", "/dev/null", "URL/")
    assert out == b"2 200 83\n"
    assert client_run(*quiet, "URL/large") == LARGE
    body = tmp_path / "body"
    body.write_bytes(b"c" * 300_000)
    assert client_run(*quiet, "--data-binary", f"@{body}", "URL/echo") == body.read_bytes()
    assert b"x-trailer: here" in client_run(*quiet, "-D", "-", "URL/trailers")


@needs("nghttp")
@pytest.mark.parametrize("extra", [(), ("-p", "10"), ("-b", "8"), ("-w", "10", "-W", "10"), ("--no-dep",)])
def test_nghttp(extra: tuple[str, ...]) -> None:
    out = client_run("nghttp", "-v", *extra, "URL/", "URL/large", "URL/trailers")
    assert out.count(b":status: 200") == 3
    assert b"x-trailer: here" in out
    assert b"GOAWAY" in out


NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_max_body_size 10m;
    server {{
        listen 127.0.0.1:{port} http2;
        http2_max_concurrent_streams 128;
        add_trailer x-trailer here;
        root {directory};
        location /upload/ {{ dav_methods PUT; create_full_put_path on; }}
    }}
}}
"""


@needs("nginx")
def test_nginx(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"s" * 83)
    (tmp_path / "large").write_bytes(LARGE)
    requests = 40
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "nginx.conf").write_text(NGINX.format(directory=tmp_path, port=port))

    async def ask() -> None:
        process = await asyncio.create_subprocess_exec(
            "nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await asyncio.wait_for(exchange(), PATIENCE)
        finally:
            process.kill()
            await process.wait()

    async def exchange() -> None:
        ours = ClientConnection(Http2Options(initial_stream_window_size=65535), TEXTS)
        sink = Asking(ours, requests)
        ours.sink = sink
        wire = None
        while wire is None:
            try:
                _, wire = await asyncio.get_running_loop().create_connection(lambda: Wire(ours), "127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
        await sink.settings.wait()
        for number in range(requests):
            path = (b"/small", b"/large", b"/missing", b"/upload/%d" % number)[number % 4]
            put = number % 4 == 3
            fields = [(b"x-number", b"%d" % number), (b"user-agent", b"mizzen")]
            if put:
                fields.append((b"content-length", b"100000"))
            stream_id = ours.open(RequestHead(b"PUT" if put else b"GET", path, b"127.0.0.1", fields), not put)
            if put:
                ours.send_data(stream_id, b"e" * 50_000, False)
                ours.send_data(stream_id, b"f" * 50_000, True)
            wire.flush()
        await sink.done.wait()
        assert sink.resets == []
        assert wire.error is None
        for number in range(requests):
            stream_id = 2 * number + 1
            assert sink.heads[stream_id].status == (200, 200, 404, 201)[number % 4]
            if number % 4 < 2:
                assert sink.bodies[stream_id] == (b"s" * 83, LARGE)[number % 4]
                assert sink.trailers[stream_id] == [(b"x-trailer", b"here")]
            elif number % 4 == 3:
                assert (tmp_path / "upload" / str(number)).read_bytes() == b"e" * 50_000 + b"f" * 50_000
        assert not ours.streams
        wire.transport.close()
        await wire.lost
        ours.sink = None

    asyncio.run(ask())
