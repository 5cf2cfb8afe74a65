import pytest

from sidecar.config.core_types import HeaderValueOption
from sidecar.config.filters.header_mutation import HeaderMutation, QueryParameterMutation, RemoveHeader, RemoveOnMatch
from sidecar.config.matcher import StringMatcher
from sidecar.filters.registry import make_filter, make_route_filter
from sidecar.http.filter_chain import FilterChain
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get, make_context

APPEND, ABSENT = "APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT"
OVERWRITE, ONLY = "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS"


def put(name, value, action=APPEND):
    return HeaderValueOption(name, value, action, False)


def run(config, request=None, answer=(), levels=()):
    worker = FakeWorker()
    context = make_context(worker)
    filter = make_filter(config, "mutate", context)
    if levels:
        filter = make_route_filter(filter, config, levels[-1], context, levels)
    return FakeStream(worker, [filter], request or get()).ask().answer(200, answer)


GIVEN = [(b"x", b"given"), (b"y", b"other")]


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ([put(b"x", "new")], [*GIVEN, (b"x", b"new")]),
        ([put(b"x", "new", ABSENT)], GIVEN),
        ([put(b"z", "new", ABSENT)], [*GIVEN, (b"z", b"new")]),
        ([put(b"x", "new", OVERWRITE)], [(b"x", b"new"), (b"y", b"other")]),
        ([put(b"z", "new", OVERWRITE)], [*GIVEN, (b"z", b"new")]),
        ([put(b"x", "new", ONLY)], [(b"x", b"new"), (b"y", b"other")]),
        ([put(b"z", "new", ONLY)], GIVEN),
        ([RemoveHeader(b"x")], GIVEN[1:]),
        ([RemoveHeader(b"z")], GIVEN),
        ([RemoveOnMatch(StringMatcher("safe_regex", b"[xz]"))], GIVEN[1:]),
        ([put(b"z", "1"), RemoveHeader(b"z")], GIVEN),
        ([RemoveHeader(b"x"), put(b"x", "new")], [(b"y", b"other"), (b"x", b"new")]),
        ([put(b"z", "%REQ(:METHOD)% %REQ(y)%")], [*GIVEN, (b"z", b"GET other")]),
    ],
)
def test_changes_of_the_request_in_their_order(changes, fields):
    assert run(HeaderMutation(tuple(changes)), get(b"/", *GIVEN)).request.fields == fields


def test_changes_of_the_response():
    config = HeaderMutation(response_mutations=(RemoveHeader(b"server"), put(b"x-code", "%RESPONSE_CODE%")))
    stream = run(config, answer=[(b"server", b"s"), (b"a", b"b")])
    assert stream.response.fields == [(b"a", b"b"), (b"x-code", b"200")]
    assert stream.request.fields == []


def test_without_changes_of_the_response_there_is_no_response_hook():
    made = make_filter(HeaderMutation((RemoveHeader(b"x"),)), "mutate", make_context())
    assert FilterChain([made]).plain_response


def level(name):
    return HeaderMutation((put(b"x-order", name),), (put(b"x-order", name),))


@pytest.mark.parametrize(
    ("specific_wins", "order"),
    [(False, [b"filter", b"route", b"host"]), (True, [b"filter", b"host", b"route"])],
)
def test_levels_follow_the_filter(specific_wins, order):
    base = level("filter")
    config = HeaderMutation(base.request_mutations, base.response_mutations, (), specific_wins)
    stream = run(config, levels=(level("host"), level("route")))
    assert stream.request.get_all(b"x-order") == order
    assert stream.response.get_all(b"x-order") == order


@pytest.mark.parametrize(
    ("path", "mutation", "expected"),
    [
        (b"/p", ("n", "v w&x=%PROTOCOL%", APPEND), b"/p?n=v%20w%26x%3DHTTP%2F1.1"),
        (b"/p?z=1&b=", ("a", "2", APPEND), b"/p?a=2&b=&z=1"),
        (b"/p?a=1", ("a", "2", APPEND), b"/p?a=1&a=2"),
        (b"/p?a=1", ("a", "2", ABSENT), b"/p?a=1"),
        (b"/p?a=1&a=3", ("a", "2", OVERWRITE), b"/p?a=2"),
        (b"/p?b=1", ("a", "2", ONLY), b"/p?b=1"),
        (b"/p?a=1", ("a", "2", ONLY), b"/p?a=2"),
        (b"/p?a=1&b=2", ("a", None, ""), b"/p?b=2"),
        (b"/p?%61=1", ("a", None, ""), b"/p"),
        (b"/p?b=%20x", ("a", "2", APPEND), b"/p?a=2&b=%20x"),
        (b"/p", ("a", None, ""), b"/p"),
    ],
)
def test_query_parameters(path, mutation, expected):
    config = HeaderMutation(query_parameter_mutations=(QueryParameterMutation(*mutation),))
    assert run(config, get(path)).request.path == expected
