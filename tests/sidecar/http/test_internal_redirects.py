"""Internal redirects over memory: what is counted where they end, and that nothing of the first pass is left."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sidecar.http.running import GET, HELLO, running


def moved(location: str = "http://a/b", status: int = 302, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        status, location.encode(), len(body), body
    )  # fmt: skip


def following(**policy: Any) -> list[dict[str, Any]]:
    return [
        {"name": "n", "match": {"prefix": "/none"}, "route": {"cluster": "up"}},
        {"name": "r", "match": {"prefix": "/"}, "route": {"cluster": "up", "internal_redirect_policy": policy}},
    ]


def predicate(name: str, message: str, **fields: Any) -> dict[str, Any]:
    kind = f"type.googleapis.com/envoy.extensions.internal_redirect.{name}.v3.{message}"
    return {"name": name, "typed_config": {"@type": kind, **fields}}


def test_a_redirect_is_followed_over_the_same_connection() -> None:
    with running(routes=following()) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.receive()
        sidecar.host.send(moved(body=b"elsewhere"))
        assert sidecar.hosts[-1].receive().startswith(b"GET /b HTTP/1.1\r\nhost: a\r\n")
        sidecar.hosts[-1].send(HELLO)
        assert client.receive().endswith(b"hello")
        assert [line.split()[3:6] for line in sidecar.log] == [
            ["302", "-", "internal_redirect"],
            ["200", "-", "via_upstream"],
        ]
        assert sidecar.stat("cluster.up.upstream_internal_redirect_succeeded_total") == 1
        assert sidecar.stat("http.in.downstream_rq_total") == 2
        client.send(GET)
        assert sidecar.hosts[-1].receive().startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("policy", "location", "counter"),
    [
        ({}, "/relative", "bad_location"),
        ({}, "http://a:b/", "bad_location"),
        ({}, "https://a/b", "unsafe_scheme"),
        ({"max_internal_redirects": 0}, "http://a/b", "too_many_redirects"),
        ({"predicates": [predicate("previous_routes", "PreviousRoutesConfig")]}, "http://a/b", None),
        (
            {"predicates": [predicate("allow_listed_routes", "AllowListedRoutesConfig", allowed_route_names=["x"])]},
            "http://a/b",
            "predicate",
        ),
        (
            {
                "allow_cross_scheme_redirect": True,
                "predicates": [predicate("safe_cross_scheme", "SafeCrossSchemeConfig")],
            },
            "https://a/b",
            "predicate",
        ),
    ],
)
def test_why_one_is_not_followed(policy: dict[str, Any], location: str, counter: str | None) -> None:
    with running(routes=following(**policy)) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.asked()
        sidecar.host.send(moved(location))
        for host, _ in sidecar.asked():
            host.send(HELLO)
        assert client.receive().startswith(b"HTTP/1.1 302 " if counter else b"HTTP/1.1 200 ")
        counted = {
            name.removeprefix("http.in.passthrough_internal_redirect_")
            for name, value in sidecar.used_stats().items()
            if "passthrough_internal_redirect" in name and value
        }
        assert counted == ({counter} if counter else set())
        assert sidecar.stat("cluster.up.upstream_internal_redirect_failed_total") == (1 if counter else 0)


def test_no_route_there() -> None:
    routes = following()[1:]
    routes[0]["match"] = {"prefix": "/a"}
    with running(routes=routes) as sidecar:
        client = sidecar.client().send(GET.replace(b" / ", b" /a "))
        sidecar.host.send(moved())
        assert client.receive().startswith(b"HTTP/1.1 302 ")
        assert sidecar.stat("http.in.passthrough_internal_redirect_no_route") == 1


def test_a_body_goes_along() -> None:
    with running(routes=following(redirect_response_codes=[307])) as sidecar:
        client = sidecar.client().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo", b"dy")
        sidecar.host.receive()
        sidecar.host.send(moved(status=307))
        ((host, asked),) = sidecar.asked()
        assert asked.endswith(b"\r\n\r\nbody")
        host.send(HELLO)
        assert client.receive().endswith(b"hello")


def test_a_request_that_is_not_whole_is_not_sent_elsewhere() -> None:
    with running(routes=following(redirect_response_codes=[307])) as sidecar:
        client = sidecar.client().send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
        sidecar.host.send(moved(status=307))
        assert client.receive().startswith(b"HTTP/1.1 307 ")


def test_the_client_leaves_on_the_way() -> None:
    with running(routes=following()) as sidecar:
        client = sidecar.client().send(GET)
        sidecar.host.send(moved())
        client.reset()
        assert [line.split()[4] for line in sidecar.log] == ["-", "DC"]


def test_requests_of_a_shape_that_is_known_are_redirected_too() -> None:
    with running(routes=following()) as sidecar:
        client = sidecar.client()
        for _ in range(4):
            client.send(GET)
            sidecar.host.send(HELLO)
            assert client.receive().endswith(b"hello")
        client.send(GET)
        sidecar.asked()
        sidecar.host.send(moved())
        ((host, asked),) = sidecar.asked()
        assert asked.startswith(b"GET /b HTTP/1.1\r\n")
        host.send(HELLO)
        assert client.receive().endswith(b"hello")
