"""The gRPC statistics filter: what counts, under which name, and how many names there may be."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.codec.grpc import frame
from sidecar.config.filters.grpc_stats import GrpcStats
from sidecar.filters import grpc_stats
from sidecar.filters.grpc_stats import service_and_method
from sidecar.filters.registry import make_filter
from sidecar.router.route import Route
from sidecar.telemetry.filter_stats import filter_stats
from sidecar.telemetry.stats import Kind
from sidecar.telemetry.store import StatsStore
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get, make_context

CALL = (b"content-type", b"application/grpc")
PATH = b"/pkg.Service/Method"


class Calls:
    """A filter, and the statistics that it fills."""

    def __init__(self, **config: Any) -> None:
        self.store = StatsStore()
        self.worker = FakeWorker()
        self.context = make_context(
            self.worker,
            stats=filter_stats(self.store, "ingress"),
            cluster_stat_name={"known": "known", "named": "other"}.get,
        )
        self.filter = make_filter(GrpcStats(**config), "grpc_stats", self.context)

    def call(self, path: bytes = PATH, cluster: str = "known", **answer: Any) -> Any:
        stream = FakeStream(self.worker, [self.filter], get(path, CALL, method=b"POST"))
        stream.cluster_name = cluster
        stream.upstream_last_tx, stream.upstream_last_rx = 1000.0, 1000.012
        stream.ask(frame(b"one") + frame(b"two"))
        trailers = answer.get("trailers", [(b"grpc-status", b"0")])
        stream.response_trailers = trailers
        return stream.answer(answer.get("status", 200), [CALL], answer.get("body", [frame(b"reply"), b""]))

    def counted(self) -> dict[str, int]:
        return {name: value for group in self.store for name, value in group.samples(Kind.COUNTER)}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (b"/pkg.Service/Method", ("pkg.Service", "Method")),
        (b"/pkg.Service/Method?x=/y", ("pkg.Service", "Method")),
        (b"//a//b/", ("a", "b")),
        (b"/just", None),
        (b"/a/b/c", None),
        (b"/", None),
    ],
)
def test_what_paths_name(path: bytes, names: tuple[str, str] | None) -> None:
    assert service_and_method(path) == names


def test_calls_count_by_service_and_method() -> None:
    calls = Calls(all_methods=True)
    calls.call()
    calls.call(trailers=[(b"grpc-status", b"5")])
    assert calls.counted() == {
        "cluster.known.grpc.pkg.Service.Method.0": 1,
        "cluster.known.grpc.pkg.Service.Method.5": 1,
        "cluster.known.grpc.pkg.Service.Method.success": 1,
        "cluster.known.grpc.pkg.Service.Method.failure": 1,
        "cluster.known.grpc.pkg.Service.Method.total": 2,
        "cluster.known.grpc.pkg.Service.Method.request_message_count": 4,
        "cluster.known.grpc.pkg.Service.Method.response_message_count": 2,
    }


def test_without_methods_all_count_together() -> None:
    calls = Calls()
    calls.call()
    calls.call(b"/other/Method")
    assert calls.counted()["cluster.known.grpc.total"] == 2


def test_listed_methods_are_told_apart() -> None:
    calls = Calls(methods={"pkg.Service": frozenset({"Method"})})
    for path in (PATH, b"/pkg.Service/Else", b"/Service/Method"):
        calls.call(path)
    totals = {name: value for name, value in calls.counted().items() if name.endswith("total")}
    assert totals == {"cluster.known.grpc.pkg.Service.Method.total": 1, "cluster.known.grpc.total": 2}


def test_dots_may_be_replaced() -> None:
    calls = Calls(all_methods=True, replace_dots=True)
    calls.call()
    assert calls.counted()["cluster.known.grpc.pkg_Service.Method.total"] == 1


def test_a_cluster_counts_under_its_name_in_statistics() -> None:
    calls = Calls(all_methods=True)
    calls.call(cluster="named")
    assert calls.counted()["cluster.other.grpc.pkg.Service.Method.total"] == 1


def test_the_cluster_is_the_route_s_unless_one_was_picked() -> None:
    calls = Calls()
    stream: Any = FakeStream(calls.worker, [calls.filter], get(PATH, CALL, method=b"POST"))
    stream.route = Route("r", "v")
    stream.route.cluster_name = "known"
    stream.ask(frame(b""))
    assert calls.counted() == {"cluster.known.grpc.request_message_count": 1}


def test_no_cluster_no_statistics() -> None:
    calls = Calls(all_methods=True)
    calls.call(cluster="")
    calls.call(cluster="unknown")
    calls.call(b"/just")
    assert calls.counted() == {}


def test_names_are_bounded_for_clients_choose_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_stats, "_MOST_METHODS", 3)
    calls = Calls(all_methods=True)
    for number in range(10):
        calls.call(b"/service/%d" % number)
    assert len(list(calls.store)) == 4
    assert calls.counted()["cluster.known.grpc.total"] == 7


def test_hosts_times_are_measured_if_wanted() -> None:
    for wanted in (False, True):
        calls = Calls(upstream_stats=wanted)
        calls.call()
        (group,) = calls.store
        group.upstream_rq_time.latch()  # type: ignore[attr-defined]
        names = [name for name, _ in group.samples(Kind.HISTOGRAM)]
        assert names == (["cluster.known.grpc.upstream_rq_time"] if wanted else [])


def test_the_state_for_logs() -> None:
    stream = Calls(emit_filter_state=True).call(body=[frame(b"a") * 3, b""])
    assert stream.filter_state is not None
    state = stream.filter_state[grpc_stats.STATE]
    assert state == {"request_message_count": "2", "response_message_count": "3"}
    assert state.plain == "2,3"
    assert Calls().call().filter_state is None


def test_service_and_method_become_tags() -> None:
    calls = Calls(all_methods=True)
    calls.call(b"/a/b")
    calls.call(b"/pkg.v1.Service/Method")
    tags = {group.prefix: (group.extracted_prefix, dict(group.tags)) for group in calls.store}
    assert tags == {
        "cluster.known.grpc.a.b.": (
            "cluster.grpc.",
            {"envoy.grpc_bridge_method": "b", "envoy.grpc_bridge_service": "a", "envoy.cluster_name": "known"},
        ),
        "cluster.known.grpc.pkg.v1.Service.Method.": (
            "cluster.grpc.Service.Method.",
            {"envoy.grpc_bridge_method": "v1", "envoy.grpc_bridge_service": "pkg", "envoy.cluster_name": "known"},
        ),
    }
