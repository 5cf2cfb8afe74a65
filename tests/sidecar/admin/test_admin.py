"""The endpoints over a real connection: what they do to the server, who may call them, and what is ours alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sidecar.core.explanation import ENDS, TAKEN, Step
from sidecar.core.question import Question
from tests.sidecar.admin.bootstraps import VARIED, cluster, endpoint, large
from tests.sidecar.admin.interface import Interface, serving


@pytest.fixture(scope="module")
def interface() -> Iterator[Interface]:
    """One for all tests."""
    with serving(VARIED) as running:
        yield running


@pytest.fixture(autouse=True)
def untouched(interface: Interface) -> None:
    """Begins every test as if nothing had been called."""
    interface.calls.made.clear()
    interface.calls.state = "LIVE"


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("/healthcheck/fail", "health_check_fail"),
        ("/healthcheck/ok", "health_check_ok"),
        ("/reset_counters", "reset_counters"),
        ("/reopen_logs", "reopen_logs"),
        ("/drain_listeners", ("drain_listeners", {"graceful": False, "skip_exit": False, "inboundonly": False})),
        (
            "/drain_listeners?graceful&inboundonly",
            ("drain_listeners", {"graceful": True, "skip_exit": False, "inboundonly": True}),
        ),
        (
            "/drain_listeners?skip_exit",
            ("drain_listeners", {"graceful": False, "skip_exit": True, "inboundonly": False}),
        ),
    ],
)
def test_changes_of_state(interface: Interface, path: str, call: Any) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        assert interface.ask(path, method).status == 405
    assert interface.calls.made == []
    answer = interface.ask(path, "POST")
    assert (answer.status, answer.body) == (200, "OK\n")
    assert interface.calls.made == [call]


def test_quitting_waits_for_the_answer(interface: Interface) -> None:
    assert interface.ask("/quitquitquit").status == 405
    assert interface.calls.made == []
    assert interface.ask("/quitquitquit", "POST").body == "OK\n"

    async def called() -> None:
        assert interface.calls.made == ["quit"]

    interface.run(called)


@pytest.mark.parametrize("state", ["DRAINING", "PRE_INITIALIZING", "INITIALIZING"])
def test_ready_only_when_live(interface: Interface, state: str) -> None:
    interface.calls.state = state
    answer = interface.ask("/ready")
    assert (answer.status, answer.body) == (503, f"{state}\n")
    assert json.loads(interface.ask("/server_info").body)["state"] == state


def test_a_strange_host_and_a_body_do_no_harm(interface: Interface) -> None:
    assert interface.ask("/ready", Host="elsewhere.example").status == 200
    assert interface.ask("/healthcheck/ok", "POST", body=b"x" * 300_000).body == "OK\n"
    assert interface.calls.made == ["health_check_ok"]


def test_the_connection_stays_usable_after_a_body(interface: Interface) -> None:
    async def talk() -> bytes:
        import asyncio

        reader, writer = await asyncio.open_connection("127.0.0.1", interface.port)
        request = b"POST /healthcheck/ok HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        writer.write(request + b"GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        try:
            return await reader.read()
        finally:
            writer.close()

    answers = interface.run(talk)
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.endswith(b"5\r\nLIVE\n\r\n0\r\n\r\n")


def test_logging_is_listed_by_get_and_changed_by_post(interface: Interface) -> None:
    assert interface.ask("/logging").body.startswith("active loggers:\n")
    assert interface.ask("/logging?level=info").status == 405


def test_unknown_paths_get_the_help(interface: Interface) -> None:
    for path in ("/contention", "/cpuprofiler", "/heapprofiler", "/stats/recentlookups", "/x"):
        answer = interface.ask(path, "POST")
        assert answer.status == 404
        assert answer.body == "invalid path. " + interface.ask("/help").body


def test_home_links_pages_and_has_buttons_for_changes(interface: Interface) -> None:
    answer = interface.ask("/")
    assert answer.headers["content-type"] == "text/html; charset=UTF-8"
    assert '<a href="config_dump">' in answer.body
    assert '<form action="quitquitquit" method="post">' in answer.body
    assert '<a href="quitquitquit">' not in answer.body


def test_options_of_the_command_line_are_shown_under_envoys_names(interface: Interface) -> None:
    options = json.loads(interface.ask("/server_info").body)["command_line_options"]
    assert options["config_path"] == "envoy.yaml"
    assert "not_envoys" not in options


def test_stats_are_the_telemetry_stages(interface: Interface) -> None:
    asked: list[Any] = []

    def stats(parameters: dict[str, str], prometheus: bool) -> Any:
        asked.append((dict(parameters), prometheus))
        return SimpleNamespace(status=200, content_type="text/x", body=iter([b"one\n", b"", b"two\n"]))

    with serving(VARIED, stats=stats) as other:
        answer = other.ask("/stats?filter=a%2B+b&usedonly&filter=second")
        assert (answer.body, answer.headers["content-type"]) == ("one\ntwo\n", "text/x")
        other.ask("/stats/prometheus")
    assert asked == [({"filter": "a++b", "usedonly": ""}, False), ({}, True)]


def test_allow_paths_are_matched_with_the_query() -> None:
    admin = {**VARIED["admin"], "allow_paths": [{"exact": "/ready"}, {"prefix": "/stats?filter"}]}
    with serving({**VARIED, "admin": admin}) as narrow:
        assert narrow.ask("/ready").status == 200
        assert narrow.ask("/stats?filter=x").status == 200
        for path in ("/ready?x=1", "/clusters"):
            answer = narrow.ask(path)
            assert (answer.status, answer.body) == (403, f"request to path {path} not allowed")
        assert narrow.ask("/quitquitquit", "POST").status == 403
        assert narrow.calls.made == []


def test_clusters_that_are_not_warm_are_in_the_init_dump() -> None:
    warming = SimpleNamespace(clusters={}, warming={"slow": None})
    with serving(VARIED, clusters=warming) as starting:
        dump = json.loads(starting.ask("/init_dump").body)
    assert dump == {"unready_targets_dumps": [{"name": "ClusterManager", "target_names": ["Cluster slow"]}]}


def test_live_figures_of_hosts() -> None:
    config = {"static_resources": {"clusters": [cluster("c", [{"lb_endpoints": [endpoint(19001)]}])]}}
    with serving(config) as running:

        async def use() -> None:
            host: Any = running.admin.context.clusters.clusters["c"].hosts[0]
            host.cx_active, host.rq_total, host.rq_error = 1, 7, 2
            host.pool = SimpleNamespace(pending=[1, 2, 3])
            host.set_flag(2, True)

        running.run(use)
        lines = running.ask("/clusters").body.splitlines()
        status = json.loads(running.ask("/clusters?format=json").body)["cluster_statuses"][0]["host_statuses"][0]
    start = "c::127.0.0.1:19001::"
    for line in ("cx_active::1", "rq_total::7", "rq_error::2", "rq_pending_active::3"):
        assert start + line in lines
    assert start + "health_flags::/failed_outlier_check" in lines
    values = {metric["name"]: metric.get("value") for metric in status["stats"]}
    assert (values["rq_total"], values["cx_active"], values["rq_pending_active"]) == ("7", "1", "3")
    assert status["health_status"] == {"failed_outlier_check": True, "eds_health_status": "HEALTHY"}


def test_explain_describes_the_request_and_shows_what_it_is_told() -> None:
    asked: list[Question] = []

    def explain(question: Question) -> list[Step]:
        asked.append(question)
        if question.source == "10.0.0.1":
            raise ValueError("10.0.0.1 is unwelcome")
        return [
            Step("listener", "l1", TAKEN, "listener l1: takes it", ("a detail",)),
            Step("verdict", "", ENDS, "verdict: 404", metadata={"istio": {"config": "x"}}),
        ]

    query = (
        "url=http://h.example/a%3Fq=1&method=PUT&header=X-A:%20b&header=x-a:c&peer=spiffe://d/ns/a/sa/b&to=10.1.1.1:80"
    )
    with serving(VARIED, explain=explain) as running:
        answer = running.ask(f"/explain?{query}")
        assert answer.body == "listener l1: takes it\n    a detail\nverdict: 404\n"
        (question,) = asked
        assert (question.method, question.path, question.authority) == (b"PUT", b"/a?q=1", "h.example")
        assert question.fields == ((b"x-a", b"b"), (b"x-a", b"c"))
        assert (question.peer, question.destination, question.tls) == ("spiffe://d/ns/a/sa/b", "10.1.1.1:80", True)
        told = json.loads(running.ask(f"/explain?{query}&format=json").body)
        assert [step["text"] for step in told] == ["listener l1: takes it", "verdict: 404"]
        assert told[1]["metadata"] == {"istio": {"config": "x"}}
        count = len(asked)
        for wrong in ("header=nothing", "path=a", "nothing=1", "", "url=a", "url=http://a/&format=xml",
                      "url=http://a/&source=b", "url=http://a/&peer=b", "url=http://a/&direction=b"):  # fmt: skip
            answer = running.ask(f"/explain?{wrong}")
            assert (answer.status, len(asked)) == (400, count), wrong
        answer = running.ask("/explain?url=http://a/&source=10.0.0.1")
        assert (answer.status, answer.body) == (400, "10.0.0.1 is unwelcome\n")


def test_secrets_of_the_bootstrap_stay_inside() -> None:
    from google.protobuf import json_format

    from sidecar.admin.compressed_bootstrap import CompressedBootstrap
    from sidecar.config.extensions import message_class

    secret = {"name": "s", "generic_secret": {"secret": {"inline_string": "swordfish"}}}
    message = message_class("envoy.config.bootstrap.v3.Bootstrap")()
    json_format.ParseDict({"static_resources": {"secrets": [secret]}}, message)
    with serving(VARIED, bootstrap=CompressedBootstrap(message.SerializeToString())) as running:
        for query in ("", "?resource=static_secrets", "?mask=bootstrap.static_resources.secrets"):
            body = running.ask(f"/config_dump{query}").body
            assert "[redacted]" in body
            assert "swordfish" not in body


def test_a_handler_that_raises_is_an_error_of_the_server() -> None:
    def broken() -> Any:
        raise RuntimeError("no listeners")

    with serving(VARIED, listeners=broken) as running:
        assert running.ask("/listeners").status == 500
        assert running.ask("/ready").status == 200


def test_no_chunk_of_a_large_dump_is_long_to_make() -> None:
    """Counted in lines, not in time: some 400 lines are half a millisecond."""
    with serving(large(300, 10)) as running:
        for target in ("/clusters", "/clusters?format=json", "/config_dump", "/config_dump?include_eds"):

            async def sizes(target: str = target) -> list[int]:
                page = running.admin.answer(b"GET", target.encode())
                assert not isinstance(page.body, bytes)
                return [chunk.count(b"\n") for chunk in page.body]

            found = running.run(sizes)
            assert len(found) > 20
            assert max(found) <= 1300
