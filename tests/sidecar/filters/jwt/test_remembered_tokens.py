"""Verified tokens are remembered: safely, within bounds, and only as long as the keys that verified them count."""

import pytest

from sidecar.config.filters.jwt_authn import JwtCacheConfig, JwtProvider, RequireAny, RequireProvider
from sidecar.filters.jwt.remembered import METADATA
from tests import tokens
from tests.sidecar.filters.jwt.building import REMOTE, Site, local, outcome

EXPIRED = (401, "Jwt is expired")


def test_second_request_is_a_hit():
    site = Site(payload_in_metadata="payload", claim_to_headers=((b"x-user", "sub"),))
    text = tokens.token()
    first, second = site.ask(text), site.ask(text)
    assert (site.stats.jwt_cache_miss, site.stats.jwt_cache_hit, site.stats.allowed) == (1, 1, 2)
    for stream in (first, second):
        assert outcome(stream) == 200
        assert stream.dynamic_metadata[METADATA]["payload"]["sub"] == "alice"
        assert stream.request.fields == [(b"x-user", b"alice")]


@pytest.mark.parametrize("forward", [True, False])
def test_token_is_stripped_or_forwarded_each_time(forward):
    site = Site(forward=forward)
    text = tokens.token()
    for _ in range(3):
        assert (site.ask(text).request.get(b"authorization") is not None) == forward


def test_expiry_is_looked_at_on_every_request():
    site = Site(clock_skew_seconds=10)
    text = tokens.token(exp=int(site.wall.now) + 100)
    assert outcome(site.ask(text)) == outcome(site.ask(text)) == 200
    site.wall.now = int(site.wall.now) + 110.5
    assert outcome(site.ask(text)) == 200
    site.wall.now += 1
    assert outcome(site.ask(text)) == EXPIRED


def test_clock_that_jumps_back_finds_a_token_too_early():
    site = Site(clock_skew_seconds=10)
    text = tokens.token(nbf=int(site.wall.now) - 100)
    assert outcome(site.ask(text)) == outcome(site.ask(text)) == 200
    site.wall.now -= 3600
    assert outcome(site.ask(text)) == (401, "Jwt not yet valid")


def test_clock_that_jumps_back_finds_a_token_that_lives_too_long():
    site = Site(max_lifetime=200.0)
    text = tokens.token(exp=int(site.wall.now) + 100)
    assert outcome(site.ask(text)) == outcome(site.ask(text)) == 200
    site.wall.now -= 3600
    assert outcome(site.ask(text)) == (401, "Jwt verification fails")


def test_changed_keys_empty_it():
    site = Site(REMOTE)
    text = tokens.token()
    stream = site.ask(text)
    site.server.answer(tokens.jwks(tokens.jwk("one", "RS256")))
    assert outcome(stream) == outcome(site.ask(text)) == 200
    site.later(301)
    stream = site.ask(text)
    assert outcome(stream) is None  # the keys are too old to go by what was verified with them
    site.server.answer(tokens.jwks(tokens.jwk("two", "RS256")))
    assert outcome(stream) == (401, "Jwt verification fails")
    assert site.stats.jwt_cache_hit == 1


def test_same_keys_again_keep_it():
    site = Site(REMOTE)
    text, keys = tokens.token(), tokens.jwks(tokens.jwk("one", "RS256"))
    site.ask(text)
    site.server.answer(keys)
    site.later(301)
    site.ask(tokens.token(sub="bob"))
    site.server.answer(keys)
    site.ask(text)
    assert site.stats.jwt_cache_hit == 1


def test_it_is_bounded():
    site = Site(jwt_cache_config=JwtCacheConfig(10, 4096))
    for number in range(100):
        assert outcome(site.ask(tokens.token(sub=str(number)))) == 200
    verified = site.filter.shared.providers["one"].verified
    assert 5 <= len(verified) <= 10


def test_tokens_in_use_stay_while_others_come():
    site = Site(jwt_cache_config=JwtCacheConfig(10, 4096))
    text = tokens.token()
    for number in range(30):
        site.ask(text)
        site.ask(tokens.token(sub=str(number)))
    assert site.stats.jwt_cache_hit == 29


def test_large_tokens_are_not_remembered():
    site = Site(jwt_cache_config=JwtCacheConfig(10, 1000))
    text = tokens.token(x="y" * 1000)
    assert outcome(site.ask(text)) == outcome(site.ask(text)) == 200
    assert len(site.filter.shared.providers["one"].verified) == 0


def test_bad_tokens_are_not_remembered():
    site = Site()
    for text in ("a.b.c", tokens.token("two", iss="one"), tokens.token(exp=1)):
        site.ask(text)
        site.ask(text)
    assert len(site.filter.shared.providers["one"].verified) == 0
    assert site.stats.jwt_cache_hit == 0


def test_audiences_of_another_requirement_do_not_count():
    """What one rule let pass by audiences of its own, the provider's own audiences still refuse."""
    one = JwtProvider("one", local(), "one", audiences=("web",))
    site = Site(providers=(one,), requires=RequireProvider("one", ("api",)))
    text = tokens.token(aud="api")
    assert outcome(site.ask(text)) == 200
    plain = site.filter.shared.compile(RequireProvider("one"))
    site.filter.shared.rules = ((lambda request: True, plain),)
    assert outcome(site.ask(text)) == (403, "Audiences in Jwt are not allowed")


@pytest.mark.parametrize(
    "extra",
    [
        (b"authorization", b"Bearer a.b.c"),
        (b"authorization", b"Bearer "),
    ],
)
def test_second_token_beside_a_remembered_one_is_seen(extra):
    site = Site()
    text = tokens.token()
    site.ask(text)
    assert outcome(site.ask(text, b"/", extra))[0] == 401


@pytest.mark.parametrize("path", [b"/?access_token=a.b.c", b"/?x&access%5ftoken=a.b.c"])
def test_bad_token_in_the_query_beside_a_remembered_one_is_seen(path):
    site = Site()
    text = tokens.token()
    assert outcome(site.ask(text)) == 200
    assert outcome(site.ask(text, path))[0] == 401


def test_remembered_token_of_one_of_several_providers():
    providers = (
        JwtProvider("one", local("one"), "one"),
        JwtProvider("two", local("two"), "two", payload_in_metadata="two"),
    )
    site = Site(providers=providers, requires=RequireAny((RequireProvider("one"), RequireProvider("two"))))
    for _ in range(2):
        assert site.ask(tokens.token("two")).dynamic_metadata[METADATA]["two"]["iss"] == "two"
