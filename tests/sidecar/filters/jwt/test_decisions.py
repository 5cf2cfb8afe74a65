"""What the filter says of itself: why it refuses, in words, and without changing or fetching anything."""

from sidecar.config.filters.jwt_authn import AllowMissing, JwtPerRoute, JwtProvider, RequireAny, RequireProvider
from sidecar.core.explanation import ENDS, OPEN, PASSES
from sidecar.filters.jwt.remembered import METADATA
from sidecar.filters.registry import make_route_filter
from tests import tokens
from tests.sidecar.filters.jwt.building import REMOTE, Site, local
from tests.sidecar.filters.streams import FakeStream, get

PROVIDERS = (
    JwtProvider("one", local("one"), "one", payload_in_metadata="payload"),
    JwtProvider("two", local("two"), "two"),
)
EITHER = RequireAny((RequireProvider("one"), RequireProvider("two", ("api",)), AllowMissing()))


def stream_of(site, text=None):
    fields = () if text is None else ((b"authorization", b"Bearer " + text.encode()),)
    return FakeStream(site.worker, [site.filter], get(b"/", *fields))


def test_each_provider_says_what_failed_first():
    site = Site(providers=PROVIDERS, requires=EITHER)
    decision = site.filter.explain(stream_of(site, tokens.token("two")))
    assert not decision.allowed
    assert decision.asked_by == "rules[0]"
    assert decision.requirement == "(a token of one or a token of two for api or no token or a good one)"
    assert decision.outcome == "Audiences in Jwt are not allowed"
    assert decision.steps == (
        "provider one: the token in header authorization: Jwt issuer is not configured",
        "provider two: the token in header authorization: Audiences in Jwt are not allowed",
    )


def test_nothing_to_be_found():
    site = Site()
    decision = site.filter.explain(stream_of(site))
    assert decision.steps == (
        "provider one: nothing in header authorization, query parameter access_token: Jwt is missing",
    )


def test_explaining_changes_nothing():
    site = Site(providers=PROVIDERS, requires=EITHER)
    stream = stream_of(site, tokens.token("one"))
    decision = site.filter.explain(stream)
    assert decision.allowed
    assert decision.steps == ("provider one: the token in header authorization is good",)
    assert stream.request.get(b"authorization") is not None
    assert stream.dynamic_metadata is None
    assert (site.stats.allowed, site.stats.jwt_cache_miss) == (0, 0)


def test_rehearsal_leaves_what_later_filters_look_at():
    site = Site(providers=PROVIDERS, requires=EITHER)
    stream = stream_of(site, tokens.token("one"))
    step = site.filter.rehearse(stream)
    assert step.outcome == PASSES
    assert stream.request.get(b"authorization") is None
    assert stream.dynamic_metadata[METADATA]["payload"]["iss"] == "one"
    assert site.stats.allowed == 0


def test_rehearsal_of_a_refusal():
    site = Site()
    stream = stream_of(site, tokens.token(exp=1))
    step = site.filter.rehearse(stream)
    assert step.outcome == ENDS
    assert step.text == "http filter jwt: denies: Jwt is expired; rules[0] asks for a token of one"
    assert step.details == ("provider one: the token in header authorization: Jwt is expired",)
    assert stream.replied == (401, b"Jwt is expired", "jwt_authn_access_denied{Jwt_is_expired}")


def test_rehearsal_without_keys_asks_nobody():
    site = Site(REMOTE)
    step = site.filter.rehearse(stream_of(site, tokens.token()))
    assert step.outcome == OPEN
    assert step.details == ("provider one: its keys have not been fetched",)
    assert site.server.asked == []


def test_route_that_names_what_there_is_not():
    site = Site()
    wrong = make_route_filter(site.filter, None, JwtPerRoute(requirement_name="x"), site.filter.shared.context)
    stream = FakeStream(site.worker, [wrong], get())
    assert wrong.rehearse(stream).outcome == ENDS
    assert stream.replied[0] == 403
    assert "Wrong requirement_name: x" in wrong.explain(stream).outcome
