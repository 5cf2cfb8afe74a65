"""The same head again and again on one connection, with what changes in it, and then one that is almost the same.

Who remembers what a head looked like must still see what is new in it: an indexed field, a value that is not allowed, a body
where there was none. Blocks use the dynamic table and Huffman's code, as real clients do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpack import Encoder

from tests.differential.blocks import Message, Site
from tests.differential.case import AwaitResponses, Reply, Send, Step, reply, request
from tests.differential.http2_case import Http2Table
from tests.differential.http2_frames import FieldLine, data, head, headers
from tests.differential.http2_steps import AwaitStream
from tests.differential.http2_upstream import answer

BOOTSTRAPS: dict[str, Callable[[Site], Message]] = {}

table = Http2Table("http2-repeated", "http2")
CASES = table.cases

TIMES = 6
USUAL = [("user-agent", "curl/8"), ("accept", "*/*"), ("x-request-id", "0f1b2f60-3c4c-4a9f-8b1e-0123456789ab")]


def repeated(
    name: str,
    *last: Sequence[FieldLine],
    body: bytes | None = None,
    usual: Sequence[FieldLine] = USUAL,
    method: str = "GET",
    upstream: Sequence[Reply] = (),
    times: int = TIMES,
) -> None:
    """The usual request some times, one after the other, each with a path of its own; then those heads."""
    for way in ("http", "down", "lenient", "lenient-down"):
        encoder = Encoder()
        steps: list[Step | bytes] = []
        stream = -1
        for number in range(times):
            stream += 2
            usual_head = head(method, f"/{number}", usual)
            steps += [headers(stream, usual_head, encoder=encoder), AwaitStream(stream)]
        for fields in last:
            stream += 2
            sent = headers(stream, fields, end=body is None, encoder=encoder)
            steps += [sent + (data(stream, body) if body is not None else b""), AwaitStream(stream)]
        table.frames(
            f"{name}-{way}", *steps, listener=way, upstream=upstream, deadline=0.4, partial=False, connections=True
        )


repeated("same")
repeated("many", times=40)
repeated("another-path", head(path="/other?x=1", fields=USUAL))
repeated("another-authority", head(fields=USUAL, authority="b.test"))
repeated("another-method", head("PUT", fields=USUAL))
repeated("another-id", head(fields=[*USUAL[:2], ("x-request-id", "another")]))
repeated("without-id", head(fields=USUAL[:2]))
repeated("fewer-fields", head(fields=USUAL[:1]))
repeated("more-fields", head(fields=[*USUAL, ("x-more", "1")]))
repeated("another-order", head(fields=USUAL[::-1]))
repeated("field-twice", head(fields=[*USUAL, USUAL[0]]))
repeated("with-a-body", head("POST", fields=USUAL), body=b"hello")
repeated("with-a-body-on-get", head(fields=USUAL), body=b"hello")
repeated("with-a-length", head("POST", fields=[*USUAL, ("content-length", "5")]), body=b"hello")
repeated("with-a-wrong-length", head("POST", fields=[*USUAL, ("content-length", "4")]), body=b"hello")
repeated("with-a-cookie", head(fields=[*USUAL, ("cookie", "a=1"), ("cookie", "b=2")]))
repeated("cookies-always", head(fields=[("cookie", "c=3")]), usual=[("cookie", "a=1"), ("cookie", "b=2")])
repeated("with-internal-fields", head(fields=[*USUAL, ("x-envoy-internal", "true"), ("x-envoy-retry-on", "5xx")]))
repeated("with-forwarded-for", head(fields=[*USUAL, ("x-forwarded-for", "1.2.3.4")]))
repeated("malformed-value", head(fields=[*USUAL[:2], ("x-request-id", "a\r\nb")]), head(fields=USUAL))
repeated("malformed-path", head(path="/a b", fields=USUAL), head(fields=USUAL))
repeated("malformed-path-with-crlf", head(path="/a\r\nx: y", fields=USUAL), head(fields=USUAL))
repeated("malformed-authority", head(authority="a test", fields=USUAL), head(fields=USUAL))
repeated("malformed-name", head(fields=[*USUAL, ("X-Upper", "1")]), head(fields=USUAL))
repeated("malformed-connection", head(fields=[*USUAL, ("connection", "close")]), head(fields=USUAL))
repeated("malformed-two-paths", [*head(fields=USUAL), (":path", "/other")], head(fields=USUAL))
repeated("malformed-no-path", head(path=None, fields=USUAL), head(fields=USUAL))
repeated("path-with-dots", head(path="/a/../b", fields=USUAL))
repeated("path-with-fragment", head(path="/a#b", fields=USUAL))
repeated("te", head(fields=[*USUAL, ("te", "trailers")]))
for _way in ("http", "down"):
    _replies: list[Reply] = []
    for _number in range(4):
        _replies += [answer(), answer(404, b"no"), answer(204, b""), answer(fields=[("set-cookie", f"a={_number}")])]
        _replies.append(answer(trailers=[("x-t", str(_number))]))
    _one: list[Reply] = []
    for _number in range(4):
        _one += [
            reply(),
            reply(404, b"no"),
            reply(204, b"", length=False),
            reply(headers=[("Set-Cookie", f"a={_number}")]),
        ]
        _one.append(reply(chunks=[b"in", b"pieces"]))
    _encoder = Encoder()
    _steps: list[Step | bytes] = []
    for _number in range(1, 41, 2):
        _steps += [headers(_number, head(path=f"/{_number}", fields=USUAL), encoder=_encoder), AwaitStream(_number)]
    table.frames(
        f"many-responses-{_way}",
        *_steps,
        listener=_way,
        upstream=_replies if _way == "http" else _one,
        connections=True,
    )
_UP: list[Step] = []
for _number in range(8):
    _UP += [Send(request("GET", f"/{_number}", USUAL)), AwaitResponses(_number + 1)]
table.add("same-up", *_UP, connections=True)
table.add("another-authority-up", *_UP, request("GET", "/", USUAL, host="b.test"), connections=True)
table.add("with-a-body-up", *_UP, request("POST", "/", USUAL, body=b"hello"), connections=True)
table.add("chunked-up", *_UP, request("POST", "/", USUAL, chunks=[b"hello"]), connections=True)
table.add("close-up", *_UP, request("GET", "/", [*USUAL, ("Connection", "close")]), connections=True)
table.add("path-with-crlf-up", *_UP, request("GET", "/a\rb", USUAL), connections=True)
table.add("value-with-nul-up", *_UP, request("GET", "/", [*USUAL, ("X-Nul", "a\x00b")]), connections=True)
