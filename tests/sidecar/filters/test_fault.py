import pytest

from sidecar.config.filters.fault import FaultAbort, FaultDelay, FaultRateLimit, FaultsOfCluster, HTTPFault
from sidecar.config.matcher import HeaderMatcher, StringMatcher
from sidecar.core.http_filter import HttpFilter
from sidecar.core.response_flags import DELAY_INJECTED, FAULT_INJECTED
from sidecar.filters.registry import make_filter, make_route_filter
from sidecar.http.filter_chain import FilterChain
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get, make_context

ALWAYS = (100, 100)
ABORT = FaultAbort(503, None, ALWAYS)


class Setting:
    def __init__(self, **config):
        self.worker = FakeWorker()
        self.context = make_context(self.worker)
        self.filter = make_filter(HTTPFault(**config), "fault", self.context)
        self.stats = self.context.stats("fault")

    def ask(self, *fields, route=None, body=b""):
        stream = FakeStream(self.worker, [self.filter], get(b"/", *fields))
        stream.route = route
        return stream.ask(body)


class Route:
    cluster_name = "a"


def test_an_abort_answers_with_the_status_and_envoys_text():
    setting = Setting(abort=ABORT)
    stream = setting.ask()
    assert stream.replied == (503, b"fault filter abort", "fault_filter_abort")
    assert stream.response_flags == FAULT_INJECTED
    assert (setting.stats.aborts_injected, setting.stats.active_faults) == (1, 0)
    assert not stream.forwarded


def test_a_grpc_abort_hands_on_its_status():
    stream = Setting(abort=FaultAbort(None, 5, ALWAYS)).ask()
    assert stream.replied[0] == 200
    assert stream.grpc_status == 5


def test_a_delay_holds_the_request_and_counts_as_active_meanwhile():
    setting = Setting(delay=FaultDelay(0.5, ALWAYS))
    stream = setting.ask()
    assert not stream.forwarded
    assert (setting.stats.delays_injected, setting.stats.active_faults) == (1, 1)
    setting.worker.advance(0.49)
    assert not stream.forwarded
    setting.worker.advance(0.02)
    assert stream.forwarded
    assert stream.response_flags == DELAY_INJECTED
    stream.answer()
    assert setting.stats.active_faults == 0


def test_a_client_that_leaves_during_a_delay_ends_the_fault():
    setting = Setting(delay=FaultDelay(0.5, ALWAYS))
    stream = setting.ask()
    stream.complete()
    assert setting.stats.active_faults == 0
    assert not setting.worker.timers
    setting.worker.advance(1.0)
    assert not stream.forwarded


def test_an_abort_may_follow_a_delay():
    setting = Setting(delay=FaultDelay(0.5, ALWAYS), abort=ABORT)
    stream = setting.ask()
    assert stream.replied is None
    setting.worker.advance(0.5)
    assert stream.replied[0] == 503
    assert stream.response_flags == DELAY_INJECTED | FAULT_INJECTED
    assert setting.stats.active_faults == 0


BY_HEADER = HTTPFault(delay=FaultDelay(None, ALWAYS), abort=FaultAbort(None, None, ALWAYS))


@pytest.mark.parametrize(
    ("fields", "status", "grpc_status"),
    [
        ([(b"x-envoy-fault-abort-request", b"429")], 429, None),
        ([(b"x-envoy-fault-abort-request", b"200")], 200, None),
        ([(b"x-envoy-fault-abort-request", b"199")], None, None),
        ([(b"x-envoy-fault-abort-request", b"600")], None, None),
        ([(b"x-envoy-fault-abort-request", b"soon")], None, None),
        ([(b"x-envoy-fault-abort-grpc-request", b"7")], 200, 7),
        ([(b"x-envoy-fault-abort-request", b"429"), (b"x-envoy-fault-abort-grpc-request", b"7")], 429, None),
        ([(b"x-envoy-fault-abort-request", b"429"), (b"x-envoy-fault-abort-request-percentage", b"0")], None, None),
        ([(b"x-envoy-fault-abort-request", b"429"), (b"x-envoy-fault-abort-request-percentage", b"60")], 429, None),
        ([(b"x-envoy-fault-abort-request", b"429"), (b"x-envoy-fault-abort-request-percentage", b"x")], 429, None),
    ],
)
def test_aborts_by_header(fields, status, grpc_status):
    stream = Setting(abort=BY_HEADER.abort).ask(*fields)
    assert (stream.replied[0] if stream.replied else None) == status
    assert stream.grpc_status == grpc_status
    assert stream.forwarded == (status is None)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ([(b"x-envoy-fault-delay-request", b"250")], 0.25),
        ([(b"x-envoy-fault-delay-request", b"0")], 0.0),
        ([(b"x-envoy-fault-delay-request", b"-5")], 0.0),
        ([(b"x-envoy-fault-delay-request", b"250"), (b"x-envoy-fault-delay-request-percentage", b"10")], 0.0),
        ([], 0.0),
    ],
)
def test_delays_by_header(fields, seconds):
    setting = Setting(delay=BY_HEADER.delay)
    stream = setting.ask(*fields)
    assert stream.forwarded == (seconds == 0.0)
    setting.worker.advance(seconds)
    assert stream.forwarded


def test_a_percentage_header_cannot_raise_the_share():
    setting = Setting(abort=FaultAbort(None, None, (40, 100)))
    fields = [(b"x-envoy-fault-abort-request", b"500"), (b"x-envoy-fault-abort-request-percentage", b"100")]
    assert setting.ask(*fields).forwarded
    setting.worker.random.value = 0.39
    assert not setting.ask(*fields).forwarded


def test_a_share_of_requests():
    setting = Setting(abort=FaultAbort(500, None, (1, 10_000)))
    assert setting.ask().forwarded
    setting.worker.random.value = 0.00009
    assert not setting.ask().forwarded


MATCHER = HeaderMatcher(b"x-fault", StringMatcher("exact", b"yes"))


@pytest.mark.parametrize(
    ("config", "fields", "meant"),
    [
        ({"headers": (MATCHER,)}, [(b"x-fault", b"yes")], True),
        ({"headers": (MATCHER,)}, [(b"x-fault", b"no")], False),
        ({"headers": (MATCHER,)}, [], False),
        ({"upstream_cluster": "a"}, [], True),
        ({"upstream_cluster": "b"}, [], False),
        ({"downstream_nodes": frozenset([b"n"])}, [(b"x-envoy-downstream-service-node", b"n")], True),
        ({"downstream_nodes": frozenset([b"n"])}, [(b"x-envoy-downstream-service-node", b"m")], False),
        ({"downstream_nodes": frozenset([b"n"])}, [], False),
    ],
)
def test_only_the_requests_that_are_meant(config, fields, meant):
    assert Setting(abort=ABORT, **config).ask(*fields, route=Route()).forwarded == (not meant)


def test_no_more_faults_at_a_time_than_allowed():
    setting = Setting(delay=FaultDelay(1.0, ALWAYS), max_active_faults=1)
    first, second = setting.ask(), setting.ask()
    assert (first.forwarded, second.forwarded) == (False, True)
    assert (setting.stats.faults_overflow, setting.stats.active_faults) == (1, 1)
    setting.worker.advance(1.0)
    first.answer()
    assert not setting.ask().forwarded


def test_statistics_by_downstream_cluster():
    field = (b"x-envoy-downstream-service-cluster", b"shop")
    setting = Setting(abort=ABORT, delay=FaultDelay(0.1, ALWAYS))
    setting.ask(field)
    setting.worker.advance(0.1)
    stats = setting.context.stats("fault_downstream_cluster", "shop")
    assert stats.counts == {"aborts_injected": 1, "delays_injected": 1}
    silent = Setting(abort=ABORT, disable_downstream_cluster_stats=True)
    silent.ask(field)
    assert silent.context.stats("fault_downstream_cluster", "shop").counts == {}


def test_clients_cannot_make_statistics_without_end():
    setting = Setting(abort=ABORT)
    for number in range(1010):
        setting.ask((b"x-envoy-downstream-service-cluster", b"c%d" % number))
    assert setting.context.stats("fault_downstream_cluster", "c999").counts == {"aborts_injected": 1}
    assert setting.context.stats("fault_downstream_cluster", "c1005").counts == {}


def test_a_limited_response_passes_a_slice_for_each_sixteenth_of_a_second():
    setting = Setting(response_rate_limit=FaultRateLimit(16, ALWAYS))  # 1024 bytes a slice
    stream = setting.ask()
    assert stream.forwarded
    assert (setting.stats.response_rl_injected, setting.stats.active_faults) == (1, 1)
    stream.answer(body=[b"a" * 2000, b"b" * 1000])
    setting.worker.advance(1.0)
    assert bytes(stream.got) == b"a" * 2000 + b"b" * 1000
    assert [(round(at - 1000.0, 4), len(data), end) for at, data, end in stream.pieces] == [
        (0.0, 1024, False),
        (0.0625, 1024, False),
        (0.125, 952, True),
    ]
    assert setting.stats.active_faults == 0


def test_a_short_limited_response_passes_at_once():
    stream = Setting(response_rate_limit=FaultRateLimit(16, ALWAYS)).ask().answer(body=b"abc")
    assert stream.pieces == [(1000.0, b"abc", True)]


def test_a_limit_by_header():
    setting = Setting(response_rate_limit=FaultRateLimit(None, ALWAYS))
    field = (b"x-envoy-fault-throughput-response", b"1")
    limited = setting.ask(field).answer(body=b"a" * 100)
    assert len(limited.got) == 64
    free = setting.ask().answer(body=b"a" * 100)
    assert len(free.got) == 100


def test_a_limited_response_stops_reading_when_too_much_waits():
    setting = Setting(response_rate_limit=FaultRateLimit(1024, ALWAYS))
    stream = setting.ask()
    stream.receive(b"a" * 600_000, False)
    assert not stream.reading
    setting.worker.advance(0.5)
    assert stream.reading


def test_a_client_that_leaves_ends_the_slices():
    setting = Setting(response_rate_limit=FaultRateLimit(1, ALWAYS))
    stream = setting.ask().answer(body=b"a" * 1000)
    stream.complete()
    got = len(stream.got)
    assert not setting.worker.timers
    setting.worker.advance(10.0)
    assert len(stream.got) == got
    assert setting.stats.active_faults == 0


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"abort": FaultAbort(503, None, (0, 100)), "delay": FaultDelay(None, (0, 100))},
        {"response_rate_limit": FaultRateLimit(1, (0, 100))},
        {"delay": FaultDelay(0.0, ALWAYS)},
    ],
)
def test_what_never_does_anything_costs_no_hook(config):
    chain = FilterChain([Setting(**config).filter])
    assert not chain.request
    assert not chain.complete
    assert chain.plain_response


def test_a_route_has_its_own_faults_and_shares_the_statistics():
    setting = Setting()
    config = HTTPFault(abort=ABORT)
    own = make_route_filter(setting.filter, HTTPFault(), config, setting.context)
    assert isinstance(own, HttpFilter)
    assert make_route_filter(setting.filter, HTTPFault(), config, setting.context) is own
    assert FakeStream(setting.worker, [own]).ask().replied[0] == 503
    assert setting.stats.aborts_injected == 1


def test_faults_of_a_downstream_cluster():
    of_cluster = FaultsOfCluster(None, FaultAbort(429, None, ALWAYS))
    config = HTTPFault(
        abort=FaultAbort(503, None, (0, 100)),
        by_downstream_cluster={b"": FaultsOfCluster(None, FaultAbort(500, None, ALWAYS)), b"known": of_cluster},
    )
    worker = FakeWorker()
    filter = make_filter(config, "fault", make_context(worker))
    named = b"x-envoy-downstream-service-cluster"
    for fields, status in (([], None), ([(named, b"known")], 429), ([(named, b"other")], 500)):
        replied = FakeStream(worker, [filter], get(b"/", *fields)).ask().replied
        assert (None if replied is None else replied[0]) == status


@pytest.mark.parametrize("kind", ["abort", "delay", "none"])
def test_metadata_goes_with_a_fault(kind):
    config = HTTPFault(
        abort=FaultAbort(503, None, ALWAYS) if kind == "abort" else None,
        delay=FaultDelay(1.0, ALWAYS) if kind == "delay" else None,
        response_rate_limit=FaultRateLimit(1, ALWAYS),
        filter_metadata={"why": "test"},
    )
    worker = FakeWorker()
    filter = make_filter(config, "fault", make_context(worker))
    stream = FakeStream(worker, [filter], get())
    stream.dynamic_metadata = {"other": {}}
    stream.ask()
    expected = {"other": {}} if kind == "none" else {"other": {}, "envoy.filters.http.fault": {"why": "test"}}
    assert stream.dynamic_metadata == expected


def test_what_the_runtime_says_stands_in_the_place_of_the_headers():
    config = HTTPFault(
        abort=FaultAbort(None, None, ALWAYS, header_http_status=418, header_grpc_status=0, percentage_is_fixed=True)
    )
    worker = FakeWorker()
    filter = make_filter(config, "fault", make_context(worker))
    for name, status in ((b"abort-request", 418), (b"abort-grpc-request", 200), (b"other", None)):
        fields = [(b"x-envoy-fault-" + name, b"429"), (b"x-envoy-fault-abort-request-percentage", b"0")]
        replied = FakeStream(worker, [filter], get(b"/", *fields)).ask().replied
        assert (None if replied is None else replied[0]) == status
