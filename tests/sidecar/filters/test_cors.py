import pytest

from sidecar.config.filters.cors import Cors, CorsPolicy
from sidecar.config.matcher import StringMatcher
from sidecar.filters.cors import merge_policies
from sidecar.filters.registry import make_filter, make_route_filter
from sidecar.http.filter_chain import FilterChain
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get, make_context

GOOD = (b"origin", b"http://good.test")
BAD = (b"origin", b"http://bad.test")
ASKS = (b"access-control-request-method", b"PUT")

FULL = CorsPolicy(
    allow_origin_string_match=(StringMatcher("exact", b"http://good.test"), StringMatcher("suffix", b".fine.test")),
    allow_methods=b"GET, PUT",
    allow_headers=b"x-one",
    expose_headers=b"x-seen",
    max_age=b"600",
    allow_credentials=True,
)
FULL_PREFLIGHT = [
    (b"access-control-allow-origin", b"http://good.test"),
    (b"access-control-allow-credentials", b"true"),
    (b"access-control-allow-methods", b"GET, PUT"),
    (b"access-control-allow-headers", b"x-one"),
    (b"access-control-max-age", b"600"),
    (b"access-control-expose-headers", b"x-seen"),
]


class Setting:
    def __init__(self, *levels):
        self.worker = FakeWorker()
        self.context = make_context(self.worker)
        base = make_filter(Cors(), "cors", self.context)
        self.filter = make_route_filter(base, Cors(), levels[-1], self.context, levels)
        self.stats = self.context.stats("cors")

    def ask(self, *fields, method=b"GET"):
        return FakeStream(self.worker, [self.filter], get(b"/", *fields, method=method)).ask()


def with_fields(**changed):
    fields = {name: getattr(FULL, name) for name in CorsPolicy.__slots__}
    return CorsPolicy(**{**fields, **changed})


def test_without_a_policy_there_is_no_hook():
    chain = FilterChain([make_filter(Cors(), "cors", make_context())])
    assert not chain.request
    assert chain.plain_response


def test_a_preflight_request_is_answered():
    setting = Setting(FULL)
    stream = setting.ask(GOOD, ASKS, method=b"OPTIONS")
    assert stream.replied == (200, b"", "cors_response")
    assert stream.response.fields == FULL_PREFLIGHT
    assert (setting.stats.origin_valid, setting.stats.origin_invalid) == (1, 0)


def test_a_preflightrequest_from_elsewhere_goes_on():
    setting = Setting(FULL)
    assert setting.ask(BAD, ASKS, method=b"OPTIONS").forwarded
    assert (setting.stats.origin_valid, setting.stats.origin_invalid) == (0, 1)


def test_or_is_answered_without_its_origin():
    stream = Setting(with_fields(forward_not_matching_preflights=False)).ask(BAD, ASKS, method=b"OPTIONS")
    assert stream.replied[0] == 200
    assert stream.response.fields == FULL_PREFLIGHT[1:5]


def test_an_actual_request_has_its_response_marked():
    stream = Setting(FULL).ask(GOOD).answer(200, [(b"access-control-allow-origin", b"*")])
    assert stream.response.fields == [
        (b"access-control-allow-origin", b"http://good.test"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"x-seen"),
    ]


@pytest.mark.parametrize("asked", [b"", b"x-a, x-b"])
def test_a_star_repeats_what_was_asked_for(asked):
    fields = [(b"access-control-request-headers", asked)] if asked else []
    stream = Setting(with_fields(allow_methods=b"*", allow_headers=b"*")).ask(GOOD, ASKS, *fields, method=b"OPTIONS")
    assert stream.response.get(b"access-control-allow-methods") == b"PUT"
    assert stream.response.get(b"access-control-allow-headers") == asked


@pytest.mark.parametrize("fields", [[], [BAD], [(b"origin", b"")]])
def test_other_responses_are_left_alone(fields):
    assert Setting(FULL).ask(*fields).answer(200).response.fields == []


def test_options_that_is_no_preflight_is_an_actual_request():
    assert Setting(FULL).ask(GOOD, method=b"OPTIONS").forwarded
    assert Setting(FULL).ask(GOOD, (b"access-control-request-method", b""), method=b"OPTIONS").forwarded


@pytest.mark.parametrize(
    ("allowed", "asked", "said"),
    [(True, b"true", True), (True, b"false", False), (False, b"true", False), (None, b"true", False)],
)
def test_private_networks(allowed, asked, said):
    setting = Setting(with_fields(allow_private_network_access=allowed))
    stream = setting.ask(GOOD, ASKS, (b"access-control-request-private-network", asked), method=b"OPTIONS")
    assert (b"access-control-allow-private-network" in stream.response.index) is said


def test_switched_off_nothing_is_counted():
    setting = Setting(with_fields(filter_enabled=(0, 100)))
    assert setting.ask(GOOD, ASKS, method=b"OPTIONS").forwarded
    assert (setting.stats.origin_valid, setting.stats.origin_invalid) == (0, 0)


def test_in_the_shadow_it_only_counts():
    setting = Setting(with_fields(filter_enabled=(0, 100), shadow_enabled=(100, 100)))
    assert setting.ask(GOOD, ASKS, method=b"OPTIONS").forwarded
    assert setting.ask(BAD).answer(200).response.fields == []
    assert (setting.stats.origin_valid, setting.stats.origin_invalid) == (1, 1)


def test_each_field_comes_from_the_most_specific_level_that_sets_it():
    host = CorsPolicy((StringMatcher("prefix", b"http"),), max_age=b"7", expose_headers=b"host", allow_credentials=True)
    route = CorsPolicy(allow_methods=b"POST", allow_credentials=False)
    merged = merge_policies((host, route))
    assert merged.allow_origin_string_match == host.allow_origin_string_match
    assert (merged.allow_methods, merged.max_age, merged.expose_headers) == (b"POST", b"7", b"host")
    assert merged.allow_credentials is False
    stream = Setting(host, route).ask(GOOD, ASKS, method=b"OPTIONS")
    assert stream.response.fields == [
        (b"access-control-allow-origin", b"http://good.test"),
        (b"access-control-allow-methods", b"POST"),
        (b"access-control-max-age", b"7"),
        (b"access-control-expose-headers", b"host"),
    ]
