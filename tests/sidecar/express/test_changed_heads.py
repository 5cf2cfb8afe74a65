"""Requests that filters take fields from, or add some to: they stay in the lane, and every one of them is judged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.codec.http1_head import render_fields
from sidecar.core.head import Field, RequestHead
from sidecar.express.heads import IndexedRequestHead, ShapedRequestHead, Template
from sidecar.express.plan import render_template
from sidecar.filters.jwt.filter import make_jwt_authn
from sidecar.filters.jwt.keys import read_keys
from tests import tokens
from tests.sidecar.express.changing import GOOD, added, jwt, mutation, token
from tests.sidecar.express.test_lane import Watch
from tests.sidecar.http.running import TO_UP, Sidecar, bootstrap

_CLAIMS = [{"header_name": "x-user", "claim_name": "sub"}]


def _request(bearer: bytes, more: bytes = b"") -> bytes:
    return b"GET /items HTTP/1.1\r\nHost: a\r\nAuthorization: %b\r\n%b\r\n" % (bearer, more)


class Way:
    """A client that has sent the same good token a few times, so that the lane knows what becomes of it."""

    def __init__(self, *filters: dict[str, Any], **more: Any) -> None:
        self.sidecar = Sidecar(bootstrap(filters=list(filters), **more))
        self.watch = Watch(self.sidecar)
        self.client = self.sidecar.client()
        for _ in range(6):
            self.ask(GOOD)

    def ask(self, bearer: bytes, more: bytes = b"") -> bytes:
        return self.watch.exchange(self.client, _request(bearer, more))

    @property
    def received(self) -> list[bytes]:
        """The heads that the host got, up to their first blank lines."""
        return bytes(self.sidecar.host.transport.written).split(b"\r\n\r\n")[:-1]


@pytest.mark.parametrize(
    ("settings", "there"),
    [
        ({}, []),
        ({"claim_to_headers": _CLAIMS}, [b"\r\nx-user: u0\r\n"]),
        ({"claim_to_headers": _CLAIMS, "forward": True}, [b"\r\nx-user: u0\r\n", b"\r\nauthorization: " + GOOD]),
        ({"forward_payload_header": "x-payload"}, [b"\r\nx-payload: " + GOOD.split(b".")[1]]),
    ],
)
def test_what_a_token_changes_stays_in_the_lane(settings: dict[str, Any], there: list[bytes]) -> None:
    way = Way(jwt(**settings))
    assert (way.watch.taken, len(way.received)) == (4, 6)
    assert way.watch.answered >= 3
    for head in way.received:
        assert (b"\r\nauthorization: " in head) is settings.get("forward", False)
        assert all(one in head for one in there)
        assert head.startswith(b"GET /items HTTP/1.1\r\nhost: a\r\n")


@pytest.mark.parametrize("settings", [{}, {"claim_to_headers": _CLAIMS}])
def test_other_tokens_of_the_same_length_are_judged(settings: dict[str, Any]) -> None:
    way = Way(jwt(**settings))
    for bad, why in (
        (token(key="two"), b"Jwt verification fails"),
        (GOOD[:-5] + b"AAAAA", b"Jwt verification fails"),
        (GOOD.replace(b"Bearer ", b"Bearex "), b"Jwt is missing"),
        (token(until=1_000_000_000), b"Jwt is expired"),
    ):
        assert len(bad) == len(GOOD)
        for _ in range(2):
            answer = way.ask(bad)
            assert answer.startswith(b"HTTP/1.1 401 ")
            assert why in answer
        assert way.ask(GOOD).startswith(b"HTTP/1.1 200 ")
    assert way.watch.taken == 16, "all of these were offered to the lane, and taken"
    assert len(way.received) == 10


def test_what_is_added_is_of_this_request() -> None:
    way = Way(jwt(claim_to_headers=_CLAIMS))
    for number in (1, 2, 1, 0, 2):
        way.ask(token(f"u{number}"))
        assert b"\r\nx-user: u%d\r\n" % number in way.received[-1]
    assert way.watch.taken == 9


def test_a_token_that_expires_meanwhile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_790_000_000.0]
    monkeypatch.setattr(make_jwt_authn, "__defaults__", (lambda: now[0],))
    way = Way(jwt())
    now[0] = 9_999_999_999 + 61.0
    answer = way.ask(GOOD)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"Jwt is expired" in answer
    assert (way.watch.taken, len(way.received)) == (5, 6)


def test_rotated_keys_hold_from_the_next_request() -> None:
    way = Way(jwt(claim_to_headers=_CLAIMS))
    (judge, *_) = way.sidecar.manager.default_chain.filters
    judge.shared.providers["login"].keys.take(read_keys(tokens.jwks(tokens.jwk("two", "HS256")).encode()))
    assert way.ask(GOOD).startswith(b"HTTP/1.1 401 ")
    assert (way.watch.taken, len(way.received)) == (5, 6)


def test_headers_that_only_tokens_may_set_come_from_nobody_else() -> None:
    way = Way(jwt(claim_to_headers=_CLAIMS))
    for _ in range(6):
        assert way.ask(GOOD, b"X-User: u9\r\n").startswith(b"HTTP/1.1 200 ")
        assert b"\r\nx-user: u0\r\n" in way.received[-1]
        assert b"u9" not in way.received[-1]


def test_what_the_router_decides_by_leaves_the_lane() -> None:
    way = Way(mutation(added("x-envoy-upstream-rq-timeout-ms", "50")), jwt())
    assert way.watch.taken == 4
    assert way.watch.answered == 0
    way.client.send(_request(GOOD))
    way.sidecar.advance(0.06)
    assert b" 504 " in way.client.receive()


def test_values_of_tokens_are_in_no_template() -> None:
    way = Way(jwt(forward_payload_header="x-payload"), routes=[{**TO_UP, "route": {"cluster": "up", "timeout": "0s"}}])
    (shape,) = way.client.protocol.kind.values()
    (plan,) = shape.plans.values()
    (variant,) = plan.variants.values()
    for template in (shape.head[3], variant.template, *plan.variants):
        assert all(value == b"" for name, value in template.fields if name in (b"authorization", b"x-payload"))
    assert GOOD.split(b".")[1] not in variant.render
    (stream,) = shape.idle
    assert stream.upstream.plan is variant
    assert (stream.request.values, stream.request.index, stream.upstream.request.values) == ((), {}, ())


_NAMES = [b"a", b"b", b"c", b"d", b"e", b"f%"]
_FIELDS: list[Field] = [(b"a", b"1"), (b"b", b"2%"), (b"c", b"3"), (b"d", b"4")]
_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(("add", "set", "remove", "remove_all", "fields")),
        st.sampled_from(_NAMES),
        st.sampled_from((b"", b"x", b"%b y", b"\r\n")),
    ),
    max_size=8,
)


@given(st.sets(st.integers(0, 3)), st.booleans(), _CHANGES)
def test_a_head_of_a_template_is_what_any_head_would_be(opened: set[int], indexed: bool, changes: Any) -> None:
    places = sorted(opened)
    template = Template(_FIELDS, dict(_FIELDS), tuple((at, _FIELDS[at][0], n) for n, at in enumerate(places)))
    for _ in range(2):  # by templates that are known already, too
        plain = RequestHead(b"GET", b"/", b"h", list(_FIELDS))
        values = [_FIELDS[at][1] for at in places]
        head = (IndexedRequestHead if indexed else ShapedRequestHead)(b"GET", b"h", b"http", template)
        head.values = values
        if indexed:
            head.index = template.filled_index(values)
        for what, name, value in changes:
            for one in (plain, head):
                if what == "fields":
                    assert one.fields is not None
                elif what == "remove_all":
                    one.remove_all([name, b"a"])
                elif what == "remove":
                    one.remove(name)
                else:
                    getattr(one, what)(name, value)
            assert head.index == plain.index
            if head.made_fields is None:
                assert render_template(head.template) % tuple(head.values) == render_fields(plain.fields)
                assert head.repeats == plain.repeats
        assert (head.fields, head.index, values) == (plain.fields, plain.index, [_FIELDS[at][1] for at in places])


def test_templates_are_bounded() -> None:
    template = Template(_FIELDS, dict(_FIELDS), ())
    made = set()
    for number in range(200):
        head = ShapedRequestHead(b"GET", b"h", b"http", template)
        head.add(b"x-%d" % number, b"1")
        head.remove(b"a")
        made.add(head.template)
        assert head.fields == [*_FIELDS[1:], (b"x-%d" % number, b"1")]
        assert head.index == dict(head.fields)
    assert len(made) <= 65


@pytest.mark.parametrize(("name", "value"), [(b"x-a", b"b\r\nc: d"), (b"x-a", b"\xff"), (b"x a", b"b"), (b"x:", b"b")])
def test_what_is_no_plain_field_goes_the_way_of_all_heads(name: bytes, value: bytes) -> None:
    head = ShapedRequestHead(b"GET", b"h", b"http", Template(_FIELDS, dict(_FIELDS), ()))
    head.add(name, value)
    assert head.made_fields == [*_FIELDS, (name, value)]
