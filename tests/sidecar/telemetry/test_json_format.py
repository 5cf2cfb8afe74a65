"""JSON formats: types, escaping, nesting, what is left out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.response_flags import NO_HEALTHY_UPSTREAM
from sidecar.telemetry.format_code import Memo
from sidecar.telemetry.format_values import quote
from sidecar.telemetry.formatter import FormatError
from sidecar.telemetry.json_format import compile_json
from tests.sidecar.telemetry.finished_streams import http_stream, tcp_stream


def line(structure: dict[str, Any], stream: Any = None, **options: Any) -> bytes:
    return compile_json(structure, **options)(http_stream() if stream is None else stream)


def test_a_string_that_is_one_command_keeps_its_type() -> None:
    structure = {
        "code": "%RESPONSE_CODE%",
        "status": "%RESP(:STATUS)%",
        "none": "%REQ(A)%",
        "flags": "%RESPONSE_FLAGS%",
    }
    assert line(structure) == b'{"code":200,"flags":"-","none":null,"status":"200"}\n'


def test_other_strings_stay_strings() -> None:
    structure = {
        "a": "code %RESPONSE_CODE%",
        "b": "%RESPONSE_CODE%%RESPONSE_CODE%",
        "c": "%REQ(A)%-%DURATION%",
        "d": "1%%",
    }
    assert line(structure) == b'{"a":"code 200","b":"200200","c":"--250","d":"1%"}\n'


def test_objects_lists_and_constants_nest() -> None:
    structure = {
        "z": {"y": {"x": "%PROTOCOL%"}, "a": [1, 2.5, True, None, "%RESPONSE_CODE%", ["%REQ(A)%"], {}, []]},
        'é"': "\u20ac\n",
    }
    assert line(structure) == (
        b'{"z":{"a":[1,2.5,true,null,200,[null],{},[]],"y":{"x":"HTTP/1.1"}},' + '"é\\"":"€\\n"}\n'.encode()
    )


def test_omitting_empty_values_drops_null_and_objects_without_members() -> None:
    structure = {
        "null": None,
        "missing": "%REQ(A)%",
        "mixed": "a%REQ(A)%b",
        "empty": "",
        "object": {"a": {"b": "%REQ(A)%"}},
        "list": ["%REQ(A)%", {"a": None}, 0],
        "nothing": [None],
        "code": "%RESPONSE_CODE%",
    }
    expected = b'{"code":200,"empty":"","list":[0],"mixed":"ab","nothing":[]}\n'
    assert line(structure, omit_empty_values=True) == expected
    assert line({"a": "%REQ(A)%"}, omit_empty_values=True) == b"{}\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"plain /?&<>'", b'"plain /?&<>\'"'),
        (b'q"b\\t\t', b'"q\\"b\\\\t\\t"'),
        (b"\x01\x7f", b'"\\u0001\x7f"'),
        ("é😀".encode(), '"é😀"'.encode()),
        (b'caf\xe9"\t\\ \xc3\xa9', b'"caf\\u00e9\\u0022\\u0009\\u005c \\u00c3\\u00a9"'),
        (b"\xed\xa0\x80 \xc0\xaf", b'"\\u00ed\\u00a0\\u0080 \\u00c0\\u00af"'),
    ],
)
def test_strings_are_escaped_as_envoy_does(value: bytes, expected: bytes) -> None:
    stream = http_stream((b"x-once", value), (b"user-agent", value))
    assert line({"a": "%REQ(X-ONCE)%"}, stream) == b'{"a":%b}\n' % expected
    assert line({"a": "%REQ(USER-AGENT)%"}, stream) == b'{"a":%b}\n' % expected
    assert line({"a": "é %REQ(X-ONCE)%"}, stream) == '{"a":"é '.encode() + expected[1:] + b"}\n"


def test_a_length_cuts_octets_of_strings_and_nothing_else() -> None:
    stream = http_stream((b"a", "aé".encode()), dynamic_metadata={"n": {"o": {"k": 1}, "t": "text"}})
    structure = {"a": "%REQ(A):2%", "b": "%DYNAMIC_METADATA(n:o):3%", "c": "%DYNAMIC_METADATA(n:t):3%"}
    assert line(structure, stream) == b'{"a":"a\\u00c3","b":{"k":1},"c":"tex"}\n'


def test_metadata_becomes_json_values() -> None:
    value = {"z": 1, "a": 'q"', "f": 0.1, "small": 1e-07, "large": 10**21, "yes": True, "none": None, "l": [1.5]}
    stream = http_stream(dynamic_metadata={"n": value})
    assert line({"m": "%DYNAMIC_METADATA(n)%"}, stream) == (
        b'{"m":{"a":"q\\"","f":0.1,"l":[1.5],"large":1e+21,"none":null,"small":1e-07,"yes":true,"z":1}}\n'
    )


def test_a_tcp_session() -> None:
    structure = {"path": "%REQ(:PATH)%", "code": "%RESPONSE_CODE%", "sent": "%BYTES_SENT%", "protocol": "%PROTOCOL%"}
    assert line(structure, tcp_stream()) == b'{"code":0,"path":null,"protocol":null,"sent":58}\n'


def test_errors_name_the_place() -> None:
    with pytest.raises(FormatError, match="position 2"):
        compile_json({"a": ["x %FOO%"]})
    with pytest.raises(TypeError, match="cannot hold"):
        compile_json({"a": object()})


@given(st.binary(max_size=40))
def test_any_octets_make_one_json_string_on_one_line(value: bytes) -> None:
    stream = http_stream((b"x-once", value))
    made = line({"a": "%REQ(X-ONCE)%", "b": "<%REQ(X-ONCE)%>", "c": "%REQ(X-ONCE):7%"}, stream)
    assert made.count(b"\n") == 1
    read = json.loads(made)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    assert (read["a"], read["b"]) == (text, f"<{text}>")


def test_memos_are_bounded() -> None:
    memo = Memo(quote)
    for number in range(5000):
        assert memo[b"%d" % number] == b'"%d"' % number
    assert len(memo) <= 1024
    assert memo[b"x" * 600] == b'"%b"' % (b"x" * 600)
    assert b"x" * 600 not in memo


def test_a_memo_does_not_mix_up_requests() -> None:
    render = compile_json({"agent": "%REQ(USER-AGENT)%", "flags": "%RESPONSE_FLAGS%", "host": "%UPSTREAM_HOST%"})
    for agent in (b"one", b"two", b"one"):
        expected = b'{"agent":"%b","flags":"-","host":"10.0.0.1:8080"}\n' % agent
        assert render(http_stream((b"user-agent", agent))) == expected
    assert (
        render(http_stream(host=None, response_flags=NO_HEALTHY_UPSTREAM))
        == b'{"agent":null,"flags":"UH","host":null}\n'
    )
