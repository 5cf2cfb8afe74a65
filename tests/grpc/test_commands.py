"""curl, nghttp and h2load as clients."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.grpc.bootstraps import AUTHORITY
from tests.grpc.commands import needs, run
from tests.grpc.conftest import Setting
from tests.grpc.subjects import stats

BIG = 3_000_000


@pytest.fixture
def roots(tmp_path: Path) -> str:
    path = tmp_path / "roots.pem"
    path.write_bytes(AUTHORITY.pem)
    return str(path)


def url(setting: Setting, path: str, listener_name: str = "plain") -> str:
    scheme = "https" if listener_name == "tls" else "http"
    return f"{scheme}://127.0.0.1:{setting.proxy.ports[listener_name]}{path}"


def fields(answer: Any) -> dict[str, str]:
    """What the upstream received, by name."""
    return dict(answer["fields"])


@needs("curl")
def test_curl_by_prior_knowledge(setting: Setting) -> None:
    say = ["-w", "\n%{http_version} %{http_code}\n"]
    text = run("curl", "-sS", "--http2-prior-knowledge", *say, "-H", "x-own: 1", url(setting, "/echo/a?b=c"))
    answer, _, how = text.partition("\n")
    assert how == "2 200\n"
    found = fields(json.loads(answer))
    assert found[":path"] == "/echo/a?b=c"
    assert found[":authority"] == f"127.0.0.1:{setting.proxy.ports['plain']}"
    assert (found["x-own"], found["x-forwarded-proto"], found[":scheme"]) == ("1", "http", "http")


@needs("curl")
@pytest.mark.parametrize(("option", "version"), [("--http2", "2"), ("--http1.1", "1.1")])
def test_curl_by_alpn(setting: Setting, roots: str, option: str, version: str) -> None:
    say = ["--cacert", roots, "-w", "\n%{http_version} %{http_code}"]
    text = run("curl", "-sS", option, *say, "-d", "hello", url(setting, "/echo", "tls"))
    answer, _, how = text.rpartition("\n")
    assert how == f"{version} 200"
    assert json.loads(answer)["size"] == 5
    assert fields(json.loads(answer))["x-forwarded-proto"] == "https"


@needs("curl")
def test_curl_sends_and_receives_megabytes(setting: Setting, roots: str, tmp_path: Path, listener_name: str) -> None:
    body = tmp_path / "body"
    body.write_bytes(bytes(BIG))
    how = ["--http2", "--cacert", roots] if listener_name == "tls" else ["--http2-prior-knowledge"]
    text = run("curl", "-sS", *how, "--data-binary", f"@{body}", url(setting, "/echo", listener_name))
    assert json.loads(text)["size"] == BIG
    text = run("curl", "-sS", *how, url(setting, f"/echo/bytes/{BIG}", listener_name))
    assert text == "\0" * BIG


@needs("curl")
def test_curl_sees_trailers(setting: Setting) -> None:
    text = run("curl", "-sS", "-v", "--http2-prior-knowledge", url(setting, "/echo/trailers"))
    assert "< x-trailer: there" in text


@needs("curl")
def test_curl_sends_many_requests_at_once(setting: Setting, roots: str) -> None:
    where = url(setting, "/direct?[1-100]", "tls")
    how = ["--http2", "--cacert", roots, "--parallel", "--parallel-max", "50", "-o", "/dev/null"]
    text = run("curl", "-sS", *how, "-w", "%{http_version} %{http_code} %{num_connects}\n", where)
    assert (text.count("2 200 0"), text.count("2 200 1")) == (99, 1)


@needs("curl")
def test_the_offer_of_an_upgrade_to_h2c_is_not_taken(setting: Setting) -> None:
    """``Upgrade: h2c`` on a request of HTTP/1.1, which RFC 9113 no longer has: answered as HTTP/1.1, as by Envoy."""
    text = run("curl", "-sS", "-v", "--http2", "-w", "\n%{http_version}", url(setting, "/echo"))
    assert text.rpartition("\n")[2] == "1.1"
    assert "101" not in text
    answer = next(line for line in text.splitlines() if '"fields"' in line)
    found = fields(json.loads(answer[answer.index("{") : answer.rindex("}") + 1]))
    assert not {"upgrade", "http2-settings", "connection"} & found.keys()


@needs("nghttp")
def test_nghttp_offers_an_upgrade_and_is_answered_as_http1(setting: Setting) -> None:
    text = run("nghttp", "-v", "-u", url(setting, "/direct"))
    assert "HTTP Upgrade failed" in text
    assert "HTTP/1.1 200 OK" in text
    assert "hello" in text


@needs("nghttp")
def test_nghttp_with_its_priorities(setting: Setting) -> None:
    """It builds a tree of PRIORITY frames for idle streams first, as browsers did."""
    text = run("nghttp", "-nv", "--weight=200", url(setting, "/direct"))
    assert text.count("send PRIORITY frame") == 5
    assert ":status: 200" in text
    assert "recv RST_STREAM" not in text
    assert "recv (stream_id=13) content-length: 5" in text


@needs("nghttp")
def test_nghttp_sends_trailers(setting: Setting, tmp_path: Path, listener_name: str) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"hello")
    text = run("nghttp", "-d", str(body), "--trailer", "x-end: 1", url(setting, "/echo", listener_name))
    answer = json.loads(text[text.index("{") :])
    assert answer["trailers"] == [["x-end", "1"]]
    assert answer["size"] == 5


@needs("nghttp")
def test_nghttp_sends_a_head_in_continuations(setting: Setting) -> None:
    text = run("nghttp", "--continuation", url(setting, "/echo"))
    found = fields(json.loads(text[text.index("{") :]))
    large = [value for name, value in found.items() if name.startswith("continuation-test-")]
    assert sum(map(len, large)) > 20_000


@needs("nghttp")
@pytest.mark.parametrize(
    "options", [["--padding=255"], ["--hexdump"], ["-w", "30", "-W", "30"], ["--no-dep"], ["-c", "0"]]
)
def test_nghttp_and_its_settings(setting: Setting, options: list[str], listener_name: str) -> None:
    text = run("nghttp", "-nv", *options, "-m", "10", url(setting, "/echo/bytes/100000", listener_name))
    assert text.count(":status: 200") == 10
    assert "recv RST_STREAM" not in text


@needs("nghttp")
def test_nothing_is_pushed_to_nghttp(setting: Setting) -> None:
    text = run("nghttp", "-nv", url(setting, "/echo"))
    assert "PUSH_PROMISE" not in text
    assert ":status: 200" in text


@needs("nghttp")
def test_nghttp_with_many_streams_and_small_windows(setting: Setting) -> None:
    """100 responses at once, each many times as large as its window, and all of them as the connection's."""
    text = run("nghttp", "-nv", "-m", "100", "-w", "14", "-W", "15", url(setting, "/echo/bytes/50000"))
    assert text.count(":status: 200") == 100
    assert sum(int(size) for size in re.findall(r"recv DATA frame <length=(\d+)", text)) == 100 * 50_000


def loaded(text: str) -> tuple[int, int]:
    """How many requests succeeded and how many did not, of h2load's report."""
    found = re.search(r"(\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed", text)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    assert found and codes, text
    total, _, _, succeeded, _ = map(int, found.groups())
    assert int(codes[1]) == succeeded, text
    return succeeded, total - succeeded


@needs("h2load")
@pytest.mark.parametrize(
    ("path", "clients", "streams"), [("/direct", 8, 16), ("/echo", 4, 8), ("/echo/bytes/20000", 2, 10)]
)
def test_h2load_gets_every_answer(setting: Setting, listener_name: str, path: str, clients: int, streams: int) -> None:
    before = stats(setting.proxy)
    where = url(setting, path, listener_name)
    text = run("h2load", "-n", "1000", "-c", str(clients), "-m", str(streams), where)
    assert loaded(text) == (1000, 0)
    name = f"http.{listener_name}.downstream_rq_2xx"
    assert stats(setting.proxy)[name] - before.get(name, 0) == 1000


@needs("h2load")
def test_h2load_posts(setting: Setting, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(bytes(30_000))
    text = run("h2load", "-n", "300", "-c", "4", "-m", "10", "-d", str(body), url(setting, "/echo"))
    assert loaded(text) == (300, 0)


@needs("h2load")
def test_h2load_speaks_http1_by_alpn(setting: Setting) -> None:
    text = run("h2load", "-n", "200", "-c", "4", "--h1", url(setting, "/direct", "tls"))
    assert loaded(text) == (200, 0)
