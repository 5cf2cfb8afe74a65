"""Keys from servers: when they are asked for, who waits, what becomes of failures, rotated keys."""

from dataclasses import replace

import pytest

from sidecar.config.filters.jwt_authn import (
    AllowMissingOrFailed,
    JwksAsyncFetch,
    JwtProvider,
    LocalJwks,
    RequireAll,
    RequireAny,
    RequireProvider,
)
from sidecar.filters.jwt import key_source
from tests import tokens
from tests.sidecar.filters.jwt.building import REMOTE, Site, local, outcome
from tests.sidecar.filters.jwt.test_keys import certificate_of_unknown_kind

KEYS = tokens.jwks(tokens.jwk("one", "RS256"))
OTHER_KEYS = tokens.jwks(tokens.jwk("two", "RS256"))
FAILED = (401, "Jwks remote fetch is failed")
BACKGROUND = replace(REMOTE, async_fetch=JwksAsyncFetch(failed_refetch_duration=2.0))


def test_request_waits_for_the_keys():
    site = Site(REMOTE)
    stream = site.ask(tokens.token())
    assert outcome(stream) is None
    (head,) = site.server.asked
    assert (head.method, head.path, head.authority) == (b"GET", b"/jwks", b"issuer.test")
    assert (site.server.cluster_name, site.server.options.timeout) == ("keys", 1.0)
    site.server.answer(KEYS)
    assert outcome(stream) == 200
    assert outcome(site.ask(tokens.token())) == 200
    assert len(site.server.asked) == site.stats.jwks_fetch_success == 1


def test_several_requests_share_one_fetch():
    site = Site(REMOTE)
    streams = [site.ask(tokens.token(sub=str(number))) for number in range(5)]
    site.server.answer(KEYS)
    assert [outcome(stream) for stream in streams] == [200] * 5
    assert (len(site.server.asked), site.stats.jwks_fetch_success, site.stats.allowed) == (1, 1, 5)


def test_so_many_wait_and_one_more_is_refused_and_counted(monkeypatch, caplog):
    monkeypatch.setattr(key_source, "_MOST_WAITING", 3)
    site = Site(REMOTE)
    streams = [site.ask(tokens.token(sub=str(number))) for number in range(3)]
    for number in range(2):
        assert outcome(site.ask(tokens.token(sub=f"late-{number}"))) == FAILED
    assert (site.stats.jwks_waiting_overflow, site.stats.denied, len(site.server.asked)) == (2, 2, 1)
    assert caplog.text.count("wait for the keys of keys") == 1
    site.server.answer(KEYS)
    assert [outcome(stream) for stream in streams] == [200] * 3
    assert outcome(site.ask(tokens.token(sub="late-0"))) == 200
    assert (site.stats.jwks_waiting_overflow, site.stats.jwks_fetch_failed) == (2, 0)


def test_nobody_asks_for_a_token_that_is_refused_anyway():
    site = Site(REMOTE, audiences=("api",))
    for text in ("a.b.c", tokens.token("two"), tokens.token(exp=1), tokens.token(aud="web")):
        assert outcome(site.ask(text))[0] in (401, 403)
    assert site.server.asked == []


@pytest.mark.parametrize(
    ("text", "status"), [(KEYS, 500), ("", 200), ("no JSON", 200), ('{"keys": []}', 200), ('{"keys": 1}', 200)]
)
def test_answer_that_is_no_use_refuses(text, status):
    site = Site(REMOTE)
    stream = site.ask(tokens.token())
    site.server.answer(text, status)
    assert outcome(stream) == FAILED
    assert (site.stats.jwks_fetch_failed, site.stats.denied) == (1, 1)
    stream = site.ask(tokens.token())
    site.server.answer(KEYS)
    assert outcome(stream) == 200


def test_certificate_of_an_unknown_kind_refuses_and_the_next_answer_is_good():
    site = Site(REMOTE)
    stream = site.ask(tokens.token())
    site.server.answer(certificate_of_unknown_kind())
    assert outcome(stream) == FAILED
    assert site.stats.jwks_fetch_failed == 1
    stream = site.ask(tokens.token())
    site.server.answer(KEYS)
    assert outcome(stream) == 200


def test_whatever_goes_wrong_while_keys_are_read_the_fetch_has_failed(monkeypatch):
    def fail(key):
        raise RuntimeError("odd")

    site = Site(REMOTE)
    stream = site.ask(tokens.token())
    with monkeypatch.context() as patched:
        patched.setattr("sidecar.filters.jwt.keys._rsa_key", fail)
        site.server.answer(KEYS)
    assert outcome(stream) == FAILED
    stream = site.ask(tokens.token())
    site.server.answer(KEYS)
    assert outcome(stream) == 200


def test_many_keys_and_many_who_wait_hold_nobody_up():
    """Keys are read some at a time, and those who wait go on some at a time: in the order in which they came."""
    site = Site(REMOTE)
    streams = [site.ask(tokens.token(sub=str(number), header={"kid": "k"})) for number in range(100)]
    others = [tokens.jwk("two", "RS256", kid=str(number)) for number in range(199)]
    site.server.answer(tokens.jwks(*others, tokens.jwk("one", "RS256", kid="k")))
    seen = [0]
    for _ in range(100):
        seen.append(sum(outcome(stream) == 200 for stream in streams))
        assert 0 <= seen[-1] - seen[-2] <= 20
        assert [outcome(stream) == 200 for stream in streams] == [True] * seen[-1] + [False] * (100 - seen[-1])
        site.worker.step()
    assert seen[-1] == 100
    assert len(site.server.asked) == site.stats.jwks_fetch_success == 1


def test_server_that_cannot_be_reached_refuses_at_once():
    site = Site(REMOTE)
    site.server.dead = True
    assert outcome(site.ask(tokens.token())) == FAILED
    assert site.stats.jwks_fetch_failed == 1


def test_waiting_request_that_ends_is_let_go():
    site = Site(REMOTE)
    stream = site.ask(tokens.token())
    stream.complete()
    site.server.answer(KEYS)
    assert not stream.forwarded
    assert stream.replied is None


def test_request_is_untouched_when_it_begins_again():
    """What an attempt has done to a request before it had to wait is not done twice."""
    providers = (
        JwtProvider("one", local("one"), "one", claim_to_headers=((b"x-user", "sub"),)),
        JwtProvider("two", replace(REMOTE), "two", from_params=(b"two",), claim_to_headers=((b"x-two", "sub"),)),
    )
    site = Site(providers=providers, requires=RequireAll((RequireProvider("one"), RequireProvider("two"))))
    stream = site.ask(tokens.token(), f"/?two={tokens.token('two')}&x=1".encode())
    assert outcome(stream) is None
    site.server.answer(OTHER_KEYS)
    assert outcome(stream) == 200
    assert stream.request.path == b"/?x=1"
    assert stream.request.fields == [(b"x-user", b"alice"), (b"x-two", b"alice")]


def test_header_that_no_request_can_carry_is_forgotten_when_it_begins_again():
    """The token that would have set it has expired by the time at which the other provider's keys have come."""
    providers = (
        JwtProvider("one", local("one"), "one", claim_to_headers=((b"x-user", "sub"),)),
        JwtProvider("two", replace(REMOTE), "two", from_params=(b"two",)),
    )
    either = RequireAny((RequireProvider("one"), AllowMissingOrFailed()))
    site = Site(providers=providers, requires=RequireAll((either, RequireProvider("two"))))
    odd = tokens.token(sub="a\nb", exp=int(site.wall.now) + 10)
    stream = site.ask(odd, f"/?two={tokens.token('two')}".encode())
    assert outcome(stream) is None
    site.later(100)
    site.server.answer(OTHER_KEYS)
    assert outcome(stream) == 200


def test_rotated_keys_are_picked_up():
    site = Site(REMOTE)
    site.ask(tokens.token())
    site.server.answer(KEYS)
    rotated = tokens.token("two", iss="one")
    assert outcome(site.ask(rotated)) == (401, "Jwt verification fails")
    site.later(301)
    stream = site.ask(rotated)
    site.server.answer(OTHER_KEYS)
    assert outcome(stream) == 200
    assert outcome(site.ask(tokens.token(sub="bob"))) == (401, "Jwt verification fails")


def test_background_fetch_comes_before_requests_and_again():
    site = Site(BACKGROUND)
    assert [wait["there"] for wait in site.waits] == [False]
    assert site.waits[0]["target"] == "Jwks async fetching url=issuer.test/jwks"
    site.server.answer(KEYS)
    assert site.waits[0]["there"]
    assert outcome(site.ask(tokens.token())) == 200
    site.later(294)
    assert len(site.server.asked) == 1
    site.later(1.5)
    assert len(site.server.asked) == 2
    assert outcome(site.ask(tokens.token())) == 200  # nobody waits for the second one
    site.server.answer(OTHER_KEYS)
    assert outcome(site.ask(tokens.token(sub="x"))) == (401, "Jwt verification fails")


def test_fast_listener_does_not_wait():
    site = Site(replace(REMOTE, async_fetch=JwksAsyncFetch(fast_listener=True)))
    assert site.waits[0]["there"]
    assert len(site.server.asked) == 1
    stream = site.ask(tokens.token())
    assert len(site.server.asked) == 1
    site.server.answer(KEYS)
    assert outcome(stream) == 200


def test_failed_background_fetch_is_repeated_soon():
    site = Site(BACKGROUND)
    site.server.fail()
    assert site.waits[0]["there"]
    site.later(1.9)
    assert len(site.server.asked) == 1
    site.later(0.2)
    assert len(site.server.asked) == 2
    site.server.answer(KEYS)
    assert outcome(site.ask(tokens.token())) == 200


def test_background_keys_stay_while_the_server_is_away():
    site = Site(BACKGROUND)
    site.server.answer(KEYS)
    site.server.dead = True
    site.later(1000)
    assert site.stats.jwks_fetch_failed > 100
    assert outcome(site.ask(tokens.token())) == 200


def test_closed_filter_asks_no_more():
    site = Site(BACKGROUND)
    site.server.answer(KEYS)
    site.filter.close()
    site.later(1000)
    assert len(site.server.asked) == 1


def test_file_is_read_again_when_it_changes(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text(KEYS)
    site = Site(LocalJwks(filename=str(path), watched=True, watched_directory=str(tmp_path)))
    assert outcome(site.ask(tokens.token())) == 200
    ((paths, changed),) = site.watched
    assert paths == (str(tmp_path), str(path))
    path.write_text("not yet written")
    changed()
    assert outcome(site.ask(tokens.token())) == 200
    path.write_text(OTHER_KEYS)
    changed()
    assert outcome(site.ask(tokens.token())) == (401, "Jwt verification fails")
    assert outcome(site.ask(tokens.token("two", iss="one"))) == 200
    site.filter.close()
    assert site.watched == []


@pytest.mark.parametrize(
    "inline", [b"", b"{", b"{}", b'{"keys": [{"kty": "RSA"}]}', b'{"keys": [{"kty": "oct", "k": ""}]}']
)
def test_local_keys_without_a_usable_one_are_refused(inline):
    with pytest.raises(ValueError, match="provider 'one': local_jwks"):
        Site(LocalJwks(inline))


def test_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        Site(LocalJwks(filename=str(tmp_path / "none")))
