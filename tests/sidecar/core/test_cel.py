"""Expressions in CEL mean what the language says: cel-python is asked the same, and what it gets wrong is a table."""

from __future__ import annotations

import math
import re
from typing import Any

import celpy
import pytest
from google.api.expr.v1alpha1.syntax_pb2 import Expr
from google.protobuf.json_format import ParseDict
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from sidecar.config.cel import CelCondition, Uint, _Parser
from sidecar.config.context import Context
from sidecar.config.fields import Node
from sidecar.config.rbac import AnyRule, Policy, Rbac
from sidecar.core.address import Address
from sidecar.core.cel import CelProblem, compile_condition, compile_expression, problem_of
from sidecar.core.cel_values import CelError
from sidecar.core.cel_words import describe_cel, unmet_parts
from sidecar.core.head import RequestHead
from sidecar.core.rbac_explanation import explain_rbac
from sidecar.core.stream_info import ConnectionInfo, StreamInfo
from tests.sidecar.cel_text import parse_cel

ERROR = "error"
VARIABLES: dict[str, Any] = {"n": 7, "s": "héllo", "b": True}


def condition(text: str, **options: bool) -> CelCondition:
    node = Node(ParseDict(parse_cel(text), Expr()), "", Context("test"))
    return CelCondition(_Parser().parse(node), **options)


def value_of(text: str, **options: bool) -> Any:
    try:
        return compile_expression(condition(text, **options), VARIABLES)(None)
    except CelError:
        return ERROR


def oracle(text: str) -> Any:
    environment = celpy.Environment()
    program = environment.program(environment.compile(text))
    try:
        found = program.evaluate({name: celpy.json_to_cel(value) for name, value in VARIABLES.items()})
    except celpy.CELEvalError:
        return ERROR
    except (IndexError, TypeError):  # an error of its own, where an operand of a choice is one
        reject()
    return plain(found)


def plain(value: Any) -> Any:
    match value:
        case celpy.celtypes.BoolType():
            return bool(value)
        case celpy.celtypes.UintType():
            return Uint(value)
        case celpy.celtypes.IntType():
            return int(value)
        case celpy.celtypes.DoubleType():
            return float(value)
        case celpy.celtypes.StringType():
            return str(value)
        case list():
            return [plain(one) for one in value]
    return value


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


SMALL = st.sampled_from(["0", "1", "2", "3", "n", "-5", "9223372036854775807", "(-9223372036854775807)"])
TEXTS = st.sampled_from(["''", "'a'", "'ab'", "'é'", "s", "'12'", "'x'"])


def binary(operators: list[str], inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda a, op, b: f"({a} {op} {b})", inner, st.sampled_from(operators), inner)


texts = st.recursive(
    TEXTS, lambda inner: st.builds(lambda b, x, y: f"({b} ? {x} : {y})", st.sampled_from(["b", "false"]), inner, inner)
)
integers: st.SearchStrategy[str] = st.deferred(
    lambda: st.one_of(
        SMALL,
        binary(["+", "-", "*", "/", "%"], integers),
        st.builds(lambda x: f"size({x})", texts),
        st.builds(lambda x: f"int({x})", texts),
        st.builds(lambda x, y: f"[1, 2, {x}][{y}]", SMALL, SMALL),
        st.builds(lambda x, y: f"{{'a': {x}, 'b': 2}}[{y}]", SMALL, TEXTS),
        st.builds(lambda c, x, y: f"({c} ? {x} : {y})", booleans, integers, integers),
    )
)
lists = st.lists(st.one_of(SMALL, st.just("x").map(lambda _: "(1 / 0)")), max_size=4).map(
    lambda elements: f"[{', '.join(elements)}]"
)
sound = st.lists(st.sampled_from("123"), max_size=4).map(lambda elements: f"[{', '.join(elements)}]")
of_x = st.one_of(
    binary(["<", "==", "!=", ">="], st.sampled_from(["x", "1", "2", "n"])),
    st.just("1 / x == 1"),
    st.just("x > 1 || 1 / x == 1"),
)
booleans: st.SearchStrategy[str] = st.deferred(
    lambda: st.one_of(
        st.sampled_from(["true", "false", "b"]),
        binary(["<", "<=", ">", ">=", "==", "!="], integers),
        binary(["<", "==", "!="], texts),
        binary(["&&", "||"], booleans),
        st.builds(lambda x: f"!{x}", booleans),
        st.builds(
            lambda x, op, y: f"{x}.{op}({y})", TEXTS, st.sampled_from(["contains", "startsWith", "endsWith"]), TEXTS
        ),
        st.builds(lambda x, y: f"{x}.matches({y})", TEXTS, st.sampled_from(["'a'", "'^a$'", "'[a-z]+'", "''"])),
        st.builds(lambda x, y: f"({x} in [{y}, 2])", SMALL, SMALL),
        st.builds(lambda x: f"({x} in {{'a': 1}})", TEXTS),
        st.builds(lambda x: f"has({{'a': 1}}.{x})", st.sampled_from("ab")),
        st.builds(
            lambda x, m, body: f"{x}.{m}(x, {body})", lists, st.sampled_from(["all", "exists", "exists_one"]), of_x
        ),
        st.builds(lambda x, y: f"({x}.map(x, x + 1) == {y})", sound, sound),
        st.builds(lambda x, y: f"({x}.filter(x, x > 1) == {y})", sound, sound),
    )
)


@settings(max_examples=400, deadline=None)
@given(st.one_of(booleans, integers))
def test_expressions_mean_what_cel_python_says(text: str) -> None:
    assert same(value_of(text), oracle(text)), text


BY_THE_DEFINITION = [
    ("1 == 1.0", True),
    ("1 == 'a'", False),
    ("[true] == [1]", False),
    ("1u < 2 && 2 > 1u && 1u == 1", True),
    ("{1: 'a'}[1u]", "a"),
    ("{true: 'a'}[1]", ERROR),
    ("true && 1", ERROR),
    ("false && 1", False),
    ("1 && false", False),
    ("1 || true", True),
    ("1 ? 2 : 3", ERROR),
    ("-(-9223372036854775807 - 1)", ERROR),
    ("(-9223372036854775807 - 1) / -1", ERROR),
    ("5u - 6u", ERROR),
    ("7u / 2u", Uint(3)),
    ("-5 / 2", -2),
    ("-5 % 3", -2),
    ("1.0 / 0.0", math.inf),
    ("'a' + 'b'", ERROR),
    ("[1] + [2]", ERROR),
    ("{'a': 1}.a", 1),
    ("{'a': {'b': 2}}.a.b", 2),
    ("has({'a': {'b': 2}}.a.c)", False),
    ("has({'a': 1}.c.d)", ERROR),
    ("{'a': 1, 'a': 2}.a", ERROR),
    ("['a', 'b'].exists(x, x == s) || true", True),
    ("{'k': 1}.all(x, x == 'k')", True),
    ("type(1) == int", True),
    ("type(1u) == int", False),
    ("type('') == string && type(b'') == bytes && type(null) == null_type", True),
    ("timestamp('2024-02-29T23:30:00Z').getDate('+01:00')", 1),
    ("timestamp('2024-02-29T23:30:00Z').getDayOfWeek()", 4),
    ("timestamp('2024-02-29T23:30:00.25Z').getMilliseconds()", 250),
    ("duration('1h30m') == duration('90m')", True),
    ("timestamp('2024-01-01T00:00:00Z') + duration('24h') == timestamp('2024-01-02T00:00:00Z')", True),
    ("duration('x') == duration('1s')", ERROR),
    ("size(b'abc') == size([1, 2, 3])", True),
    ("bool('true') && !bool('false')", True),
    ("int('1_0')", ERROR),
    ("double('1e3') == 1000.0", True),
    ("uint(-1)", ERROR),
    ("int(9.0e18) > 0", True),
    ("int(9.3e18)", ERROR),
]


@pytest.mark.parametrize(("text", "expected"), BY_THE_DEFINITION, ids=[text for text, _ in BY_THE_DEFINITION])
def test_by_the_definition(text: str, expected: Any) -> None:
    assert same(value_of(text), expected)


STRINGS = [
    ("string(1) + string(true)", "1true"),
    ("string(1.5) + string(b'x') + string(duration('90s')) + string(timestamp('2024-01-02T03:04:05Z'))",
     "1.5x90s2024-01-02T03:04:05Z"),
    ("'aÉB'.lowerAscii()", "aÉb"),
    ("'aéb'.upperAscii()", "AéB"),
    ("' a '.trim()", "a"),
    ("'a,b,c'.split(',', 2) == ['a', 'b,c']", True),
    ("['a', 'b'].join('-')", "a-b"),
    ("'hello'.substring(1, 3)", "el"),
    ("'hello'.substring(3, 1)", ERROR),
    ("'hello'.indexOf('l')", 2),
    ("'hello'.lastIndexOf('l')", 3),
    ("'hello'.replace('l', 'L', 1)", "heLlo"),
    ("'abc'.charAt(3)", ""),
    ("'abc'.reverse()", "cba"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), STRINGS, ids=[text for text, _ in STRINGS])
def test_what_can_be_switched_on_for_strings(text: str, expected: Any) -> None:
    on = {"string_conversion": True, "string_concat": True, "string_functions": True}
    assert same(value_of(text, **on), expected)


@pytest.mark.parametrize("text", ["string(1) == '1'", "'A'.lowerAscii() == 'a'"])
def test_what_is_switched_off_is_refused(text: str) -> None:
    with pytest.raises(CelProblem, match=r"switched off; set cel_config\.enable_string_"):
        compile_expression(condition(text), {})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("request.nothing == 1", r"request\.nothing has no value where access is decided; request has path"),
        ("response.code == 200", r"'response' is no attribute"),
        ("size(request) == 1", r"request is used as a whole; name one of its attributes, as in request\.path"),
        ("nobody == 'x'", r"'nobody' is no attribute; known are connection, destination"),
        ("request.path.shout()", r"there is no function 'shout'"),
        ("request.path.matches('(')", r"'\(' is no regular expression"),
        (f"request.path.matches('{'a?' * 80}')", r"larger than 100"),
    ],
)
def test_what_can_have_no_value_is_refused(text: str, problem: str) -> None:
    found = problem_of(condition(text))
    assert found is not None
    assert re.search(problem, found), found


def test_the_work_of_an_expression_is_bounded() -> None:
    many = f"[{', '.join(['1'] * 30)}]"
    nested = f"{many}.all(x, {many}.all(y, {many}.all(z, x == z)))"
    assert value_of(nested) == ERROR
    assert value_of(f"{many}.all(x, {many}.all(y, x == y))") is True
    doubling = f"{many}.map(x, {many}.map(y, {many}.map(z, z)))"
    assert value_of(f"size({doubling})") == ERROR


def test_a_condition_that_fails_does_not_hold() -> None:
    assert not compile_condition(condition("1 / 0 == 1"), {})(None)
    assert not compile_condition(condition("1"), {})(None)
    assert compile_condition(condition("1 / 0 == 1 || true"), {})(None)


WRITTEN = [
    'request.path == "/x" && (request.method == "GET" || !has(request.headers.x))',
    'request.headers["x-a"].startsWith("a")',
    '[1, 2u, 1.5, true, null, "a"].exists(x, x > 1)',
    '{"a": 1}.all(k, k == "a")',
    "size(request.path) in [1, 2]",
    "(1 + 2) * -n == 3 ? true : false",
]


@pytest.mark.parametrize("text", WRITTEN)
def test_expressions_are_written_out_again(text: str) -> None:
    written = describe_cel(condition(text).root)
    assert condition(written) == condition(text), written


def test_the_parts_that_do_not_hold_are_named() -> None:
    info = ConnectionInfo(1, Address("10.0.0.1", 80), Address("10.0.0.2", 5), 0.0)
    subject = StreamInfo(info, RequestHead(b"GET", b"/x", b"a", [(b"x-a", b"1")]), 0.0, 0.0)
    asked = condition("request.path == '/x' && request.headers['x-b'] == '1' && request.headers['x-a'] == '2'")
    assert unmet_parts(asked, subject) == [
        'condition request.headers["x-b"] == "1" ends in an error: no such header: \'x-b\'',
        'condition request.headers["x-a"] == "2" is not met',
    ]
    policy = Policy("p", (AnyRule(),), (AnyRule(),), asked)
    decision = explain_rbac(Rbac("ALLOW", (policy,)), subject)
    assert not decision.allowed
    assert decision.failed["p"] == tuple(unmet_parts(asked, subject))
