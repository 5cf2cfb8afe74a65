import pytest

from sidecar.config.filters.health_check import HealthCheck
from sidecar.config.matcher import HeaderMatcher, StringMatcher
from sidecar.core.response_flags import FAILED_LOCAL_HEALTH_CHECK
from sidecar.filters.registry import make_filter
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get, make_context

AT_HEALTH = (HeaderMatcher(b":path", StringMatcher("exact", b"/health")),)


class Setting:
    def __init__(self, pass_through=False, cache_time=None, percentages=None, clusters=None):
        self.worker = FakeWorker()
        self.failed = False
        self.context = make_context(
            self.worker, cluster_health=(clusters or {}).get, health_check_failed=lambda: self.failed
        )
        config = HealthCheck(pass_through, cache_time, percentages or {}, AT_HEALTH)
        self.filter = make_filter(config, "health", self.context)
        self.stats = self.context.stats("health_check")

    def ask(self, path=b"/health"):
        return FakeStream(self.worker, [self.filter], get(path)).ask()


def test_a_health_check_is_answered():
    setting = Setting()
    stream = setting.ask()
    assert stream.replied == (200, b"", "health_check_ok")
    assert stream.response.get(b"x-envoy-upstream-healthchecked-cluster") == b"mine"
    assert (setting.stats.request_total, setting.stats.ok, setting.stats.failed) == (1, 1, 0)


def test_other_requests_go_on_unmarked():
    stream = Setting().ask(b"/other")
    assert stream.forwarded
    assert stream.answer().response.fields == []


def test_a_proxy_that_is_to_be_taken_for_failed():
    setting = Setting(pass_through=True)
    setting.failed = True
    stream = setting.ask()
    assert stream.replied == (503, b"", "health_check_failed")
    assert stream.response_flags == FAILED_LOCAL_HEALTH_CHECK
    assert stream.response.get(b"x-envoy-immediate-health-check-fail") == b"true"
    other = setting.ask(b"/other").answer()
    assert other.response.fields == [(b"x-envoy-immediate-health-check-fail", b"true")]
    assert (setting.stats.failed, setting.stats.request_total) == (1, 1)


def test_passed_through_the_upstream_answers():
    setting = Setting(pass_through=True)
    stream = setting.ask()
    assert stream.forwarded
    assert stream.answer(503).response.fields == [(b"x-envoy-upstream-healthchecked-cluster", b"mine")]
    assert setting.stats.request_total == 0


def test_the_upstreams_answer_is_kept_for_a_while():
    setting = Setting(pass_through=True, cache_time=10.0)
    setting.ask().answer(503)
    cached = setting.ask()
    assert cached.replied == (503, b"", "health_check_cached")
    assert cached.response_flags == FAILED_LOCAL_HEALTH_CHECK
    assert setting.stats.cached_response == 1
    setting.worker.advance(10.0)
    assert setting.ask().forwarded


def test_a_degraded_answer_is_kept_as_such():
    setting = Setting(pass_through=True, cache_time=10.0)
    setting.ask().answer(200, [(b"x-envoy-degraded", b"1")])
    assert b"x-envoy-degraded" in setting.ask().response.index
    assert setting.stats.degraded == 1


@pytest.mark.parametrize(
    ("percentages", "clusters", "status", "details", "counted"),
    [
        ({"a": 50.0}, {"a": (1, 2)}, 200, "health_check_ok_cluster_healthy", "ok"),
        ({"a": 51.0}, {"a": (1, 2)}, 503, "health_check_failed_cluster_unhealthy", "failed_cluster_unhealthy"),
        ({"a": 50.9}, {"a": (1, 2)}, 200, "health_check_ok_cluster_healthy", "ok"),
        ({"a": 1.0}, {"a": (0, 0)}, 503, "health_check_failed_cluster_empty", "failed_cluster_empty"),
        ({"a": 0.0}, {"a": (0, 0)}, 200, "health_check_ok_cluster_healthy", "ok"),
        ({"b": 0.0}, {"a": (1, 1)}, 503, "health_check_failed_no_cluster_found", "failed_cluster_not_found"),
        ({"a": 50.0, "b": 50.0}, {"a": (2, 2), "b": (0, 2)}, 503, "health_check_failed_cluster_unhealthy", "failed"),
    ],
)
def test_the_health_of_clusters(percentages, clusters, status, details, counted):
    setting = Setting(percentages=percentages, clusters=clusters)
    stream = setting.ask()
    assert stream.replied == (status, b"", details)
    assert stream.response_flags == (0 if status == 200 else FAILED_LOCAL_HEALTH_CHECK)
    assert getattr(setting.stats, counted) == 1
