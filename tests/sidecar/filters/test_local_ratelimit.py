import gc
import weakref

import pytest

from sidecar.config.core_types import HeaderValueOption, TokenBucket
from sidecar.config.filters.local_ratelimit import LocalRateLimit, LocalRateLimitDescriptor
from sidecar.config.rate_limit import RateLimit, RequestHeaders
from sidecar.core.address import Address
from sidecar.core.response_flags import RATE_LIMITED
from sidecar.core.stream_info import ConnectionInfo
from sidecar.filters.registry import make_filter, make_route_filter
from sidecar.http.filter_chain import FilterChain
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get, make_context

ALWAYS = (100, 100)


def bucket(tokens, interval=60.0, per_fill=None):
    return TokenBucket(tokens, per_fill or tokens, interval)


class Setting:
    def __init__(self, **config):
        self.worker = FakeWorker()
        self.context = make_context(self.worker)
        defaults = {"stat_prefix": "limit", "filter_enabled": ALWAYS, "filter_enforced": ALWAYS}
        self.config = LocalRateLimit(**{**defaults, **config})
        self.filter = make_filter(self.config, "limit", self.context)
        self.stats = self.context.stats("local_rate_limit", "limit")

    def ask(self, path=b"/", *fields, connection=None, filters=None):
        return FakeStream(self.worker, filters or [self.filter], get(path, *fields), connection).ask()

    def counts(self):
        stats = self.stats
        return stats.enabled, stats.ok, stats.rate_limited, stats.enforced


def test_requests_pass_until_the_bucket_is_empty():
    setting = Setting(token_bucket=bucket(2))
    assert [setting.ask().forwarded for _ in range(3)] == [True, True, False]
    assert setting.counts() == (3, 2, 1, 1)


def test_the_answer_is_envoys():
    setting = Setting(token_bucket=bucket(1))
    setting.ask()
    stream = setting.ask()
    assert stream.replied == (429, b"local_rate_limited", "local_rate_limited")
    assert stream.response_flags == RATE_LIMITED


def test_tokens_come_back():
    setting = Setting(token_bucket=bucket(4, 2.0))
    for _ in range(4):
        assert setting.ask().forwarded
    assert not setting.ask().forwarded
    setting.worker.advance(0.5)
    assert setting.ask().forwarded
    assert not setting.ask().forwarded


def test_another_status_and_headers_of_the_answer():
    added = (HeaderValueOption(b"x-limit", "%PROTOCOL%", "APPEND_IF_EXISTS_OR_ADD", False),)
    setting = Setting(token_bucket=bucket(1), status=503, response_headers_to_add=added)
    assert setting.ask().forwarded
    stream = setting.ask()
    assert stream.response.status == 503
    assert stream.response.fields[0] == (b"x-limit", b"HTTP/1.1")


def test_what_is_not_enforced_passes_marked():
    added = (HeaderValueOption(b"x-over", "yes", "APPEND_IF_EXISTS_OR_ADD", False),)
    setting = Setting(token_bucket=bucket(1), filter_enforced=(0, 100), request_headers_to_add_when_not_enforced=added)
    first, second = setting.ask(), setting.ask()
    assert first.forwarded
    assert first.request.get(b"x-over") is None
    assert second.forwarded
    assert second.request.get(b"x-over") == b"yes"
    assert setting.counts() == (2, 1, 1, 0)


def test_only_a_share_is_counted():
    setting = Setting(token_bucket=bucket(1), filter_enabled=(50, 100))
    setting.worker.random.value = 0.6
    assert all(setting.ask().forwarded for _ in range(3))
    assert setting.counts() == (0, 0, 0, 0)
    setting.worker.random.value = 0.4
    assert [setting.ask().forwarded for _ in range(2)] == [True, False]


def test_switched_off_it_has_no_hook():
    assert not FilterChain([Setting(token_bucket=bucket(1), filter_enabled=(0, 100)).filter]).request


BY_PATH = (RateLimit((RequestHeaders(b":path", "path", False),)), RateLimit((RequestHeaders(b"x-who", "who", False),)))


def descriptors(*entries):
    return tuple(LocalRateLimitDescriptor(((key, value),), limit) for key, value, limit in entries)


def test_descriptors_have_buckets_of_their_own():
    setting = Setting(
        token_bucket=bucket(100), rate_limits=BY_PATH,
        descriptors=descriptors(("path", "/one", bucket(1)), ("who", "me", bucket(2))),
    )  # fmt: skip
    assert [setting.ask(b"/one").forwarded for _ in range(2)] == [True, False]
    assert [setting.ask(b"/x", (b"x-who", b"me")).forwarded for _ in range(3)] == [True, True, False]
    assert all(setting.ask(b"/x", (b"x-who", b"you")).forwarded for _ in range(5))


@pytest.mark.parametrize(("consume", "passing"), [(True, 1), (False, 3)])
def test_requests_with_a_descriptor_take_from_the_default_bucket_too(consume, passing):
    setting = Setting(
        token_bucket=bucket(1), rate_limits=BY_PATH, descriptors=descriptors(("path", "/one", bucket(3))),
        always_consume_default_token_bucket=consume,
    )  # fmt: skip
    assert sum(setting.ask(b"/one").forwarded for _ in range(5)) == passing


def test_an_empty_value_is_any_value_each_apart():
    setting = Setting(
        token_bucket=bucket(100), rate_limits=BY_PATH, descriptors=descriptors(("path", "", bucket(1))),
        max_dynamic_descriptors=2,
    )  # fmt: skip
    assert [setting.ask(path).forwarded for path in (b"/a", b"/a", b"/b", b"/b")] == [True, False, True, False]
    assert setting.ask(b"/c").forwarded
    assert setting.ask(b"/a").forwarded, "the bucket of /a was given up for the one of /c"
    assert not setting.ask(b"/c").forwarded


def test_hits_count_as_often_as_they_say():
    setting = Setting(
        token_bucket=bucket(100), descriptors=descriptors(("path", "/one", bucket(5))),
        rate_limits=(RateLimit((RequestHeaders(b":path", "path", False),), 2),),
    )  # fmt: skip
    assert [setting.ask(b"/one").forwarded for _ in range(3)] == [True, True, False]


def test_each_connection_has_its_own_bucket():
    setting = Setting(token_bucket=bucket(1), local_rate_limit_per_downstream_connection=True)
    one, two = (ConnectionInfo(id, Address("127.0.0.1", 80), Address("127.0.0.1", id), 0.0) for id in (1, 2))
    assert [setting.ask(connection=one).forwarded for _ in range(2)] == [True, False]
    assert [setting.ask(connection=two).forwarded for _ in range(2)] == [True, False]


def limits_of(stream):
    names = (b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")
    return tuple(stream.response.get(name) for name in names)


def test_the_client_is_told_about_the_bucket():
    setting = Setting(token_bucket=bucket(3), enable_x_ratelimit_headers=True)
    seen = [limits_of(setting.ask().answer()) for _ in range(3)]
    assert seen == [(b"3", b"2", b"0"), (b"3", b"1", b"0"), (b"3", b"0", b"20")]
    limited = setting.ask()
    assert limited.replied[0] == 429
    assert limits_of(limited) == (b"3", b"0", b"20")


def test_the_bucket_of_the_descriptor_is_the_one_that_clients_hear_of():
    setting = Setting(
        token_bucket=bucket(10), rate_limits=BY_PATH, descriptors=descriptors(("path", "/one", bucket(2, 20.0))),
        enable_x_ratelimit_headers=True,
    )  # fmt: skip
    assert limits_of(setting.ask(b"/one").answer()) == (b"2", b"1", b"0")
    assert limits_of(setting.ask(b"/two").answer()) == (b"10", b"8", b"0")


def test_routes_that_share_a_configuration_share_its_bucket():
    setting = Setting(token_bucket=bucket(1))
    own_config = LocalRateLimit("own", token_bucket=bucket(2), filter_enabled=ALWAYS, filter_enforced=ALWAYS)
    first, second = (make_route_filter(setting.filter, setting.config, own_config, setting.context) for _ in range(2))
    passed = [setting.ask(filters=[one]).forwarded for one in (first, second, first)]
    assert passed == [True, True, False]
    assert setting.counts() == (0, 0, 0, 0)
    assert setting.ask().forwarded


class Route:
    include_vh_rate_limits = False
    vh_rate_limits = ()
    rate_limits = BY_PATH


def test_without_rate_limits_of_its_own_it_uses_the_routes():
    setting = Setting(token_bucket=bucket(100), descriptors=descriptors(("path", "/one", bucket(1))))

    def ask(route):
        stream = FakeStream(setting.worker, [setting.filter], get(b"/one"))
        stream.route = route
        return stream.ask().forwarded

    route = Route()
    assert [ask(None), ask(None), ask(route), ask(route)] == [True, True, True, False]
    gone = weakref.ref(route)
    del route
    gc.collect()
    assert gone() is None  # routes that an update has replaced are forgotten


@pytest.mark.parametrize(("hosts", "passing"), [(None, 6), (0, 6), (1, 6), (3, 2), (7, 0)])
@pytest.mark.parametrize("own", [False, True])
def test_what_a_bucket_holds_is_for_all_hosts_of_the_local_cluster(hosts, passing, own):
    worker = FakeWorker()
    context = make_context(worker, cluster_health=lambda name: None if hosts is None else (0, hosts))
    config = LocalRateLimit(
        "limit",
        token_bucket=bucket(100 if own else 6),
        filter_enabled=ALWAYS,
        filter_enforced=ALWAYS,
        local_cluster="mine",
        always_consume_default_token_bucket=not own,
        descriptors=descriptors(("path", "/one", bucket(6))) if own else (),
        rate_limits=BY_PATH if own else (),
    )
    filter = make_filter(config, "limit", context)
    assert sum(FakeStream(worker, [filter], get(b"/one")).ask().forwarded for _ in range(8)) == passing


def test_what_counts_no_time_is_within_every_limit():
    setting = Setting(
        token_bucket=bucket(100), descriptors=descriptors(("path", "/one", bucket(1))),
        rate_limits=(RateLimit((RequestHeaders(b":path", "path", False),), 0),),
    )  # fmt: skip
    assert [setting.ask(b"/one").forwarded for _ in range(3)] == [True] * 3
