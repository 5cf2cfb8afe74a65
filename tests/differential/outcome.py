"""What one proxy did with one case, as a flat mapping of named fields, with all that may rightly vary made equal.

A field is named by its way: ``client[0].response[1].headers.server``, ``upstream[0].start``, ``access_log[0].flags``.
"""

from __future__ import annotations

import itertools
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import brotli
import zstandard

from tests.differential import check_requests
from tests.differential.case import Case
from tests.differential.client import Client, Response, responses_by_connection
from tests.differential.http2_client import StreamSeen, Transcript
from tests.differential.seen import Seen

Fields = dict[str, object]

_DATE = re.compile(r"^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z][a-z] \d{4} \d\d:\d\d:\d\d GMT$")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_PORT = re.compile(r"(?<=[\d\]]:)\d{4,5}(?!\d)")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z?")
_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: zlib.decompressobj(31).decompress(data),
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}
_OWN = ("date", "server", "via", "x-envoy-", "x-forwarded-", "x-request-id")
_MILLISECONDS = frozenset({"x-envoy-upstream-service-time", "x-duration"})


@dataclass(frozen=True, slots=True)
class Names:
    """Ports by what they stand for, so that text which quotes a port is comparable between the proxies."""

    ports: Mapping[int, str]

    def text(self, value: str) -> str:
        """Known ports become their names, other ports, ids and times become their kinds."""
        value = _PORT.sub(lambda match: f"<{self.ports.get(int(match[0]), 'port')}>", value)
        return _TIME.sub("<time>", _UUID.sub("<uuid>", value))

    def value(self, value: object) -> object:
        """A value from JSON: text as above, and a number that is a known port becomes its name."""
        if isinstance(value, str):
            return self.text(value)
        return self.ports.get(value, value) if isinstance(value, int) else value

    def header(self, name: str, value: str) -> str:
        """A header's value, comparable."""
        lowered = name.lower()
        if lowered in _MILLISECONDS and value.isdigit():
            return "<ms>"
        if lowered == "date" and _DATE.match(value):
            return "<date>"
        if lowered == "x-forwarded-port" and value.isdigit():
            return self.ports.get(int(value), value)
        return self.text(value)

    def body(self, data: bytes, headers: Sequence[tuple[str, str]] = ()) -> str:
        """A body, comparable: what a coding hides is shown, since two compressors need not write the same bytes."""
        for name, value in headers:
            if name.lower() == "content-encoding" and value in _DECODERS:
                try:
                    return f"{value}: {self.text(_DECODERS[value](data).decode('latin-1'))}"
                except (zlib.error, brotli.error, zstandard.ZstdError):
                    break
        return self.text(data.decode("latin-1"))


def fields_of(case: Case, client: Client, seen: Sequence[Seen], names: Names) -> Fields:
    """Everything comparable about one run of a case, but for its access log."""
    fields: Fields = {}
    for number, (final, interim, rest, closed) in responses_by_connection(client).items():
        place = f"client[{number}]"
        fields[f"{place}.responses"] = len(final)
        for index, response in enumerate(final):
            _add_response(fields, f"{place}.response[{index}]", response, names)
        for index, response in enumerate(interim):
            _add_response(fields, f"{place}.interim[{index}]", response, names)
        fields[f"{place}.rest"] = names.body(rest)
        fields[f"{place}.closed"] = closed
    for number, connection in sorted(client.connections.items()):
        if connection.transcript is not None:
            _add_transcript(fields, f"client[{number}]", connection.transcript, names)
            fields[f"client[{number}].closed"] = connection.closed
    _add_seen(fields, case, seen, names)
    return _kept(case, fields)


def _add_transcript(fields: Fields, place: str, transcript: Transcript, names: Names) -> None:
    fields[f"{place}.streams"] = sorted(number for number, seen in transcript.streams.items() if seen != StreamSeen())
    fields[f"{place}.goaway"] = [code for code, _ in transcript.goaways]
    fields[f"{place}.goaway_last"] = [last for code, last in transcript.goaways if code == "NO_ERROR"]
    fields[f"{place}.pongs"] = transcript.pongs
    fields[f"{place}.pushed"] = transcript.pushed
    fields[f"{place}.rest"] = names.body(transcript.rest)
    for number, seen in transcript.streams.items():
        stream = f"{place}.stream[{number}]"
        for index, lines in enumerate(seen.interim):
            _add_lines(fields, f"{stream}.interim[{index}]", lines, names)
        if seen.head is not None:
            _add_lines(fields, f"{stream}.headers", seen.head, names)
        fields[f"{stream}.body"] = names.body(seen.body, seen.head or ())
        if seen.trailers is not None:
            _add_lines(fields, f"{stream}.trailers", seen.trailers, names)
        fields[f"{stream}.ended"] = seen.ended
        fields[f"{stream}.reset"] = seen.reset


def _add_lines(fields: Fields, place: str, lines: Sequence[tuple[str, str]], names: Names) -> None:
    """Fields as in HTTP/1.1, and beside them the order of their names."""
    fields[f"{place}.order"] = _order(lines)
    _add_headers(fields, place, lines, names)


def _add_response(fields: Fields, place: str, response: Response, names: Names) -> None:
    fields[f"{place}.start"] = response.start
    _add_headers(fields, f"{place}.headers", response.headers, names)
    fields[f"{place}.body"] = names.body(response.body, response.headers)
    _add_headers(fields, f"{place}.trailers", response.trailers, names)
    fields[f"{place}.complete"] = response.complete


def _order(lines: Sequence[tuple[str, str]]) -> list[str]:
    """The names in the order in which they passed. Where a proxy puts its own among them says nothing, nor does the order
    of the pseudo-header fields at the beginning."""
    names = [name for name, _ in lines if not name.startswith(_OWN)]
    pseudo = list(itertools.takewhile(lambda name: name.startswith(":"), names))
    return sorted(pseudo) + names[len(pseudo) :]


def _add_headers(fields: Fields, place: str, headers: Sequence[tuple[str, str]], names: Names) -> None:
    """One field for each name as written, holding its values in order."""
    for name, value in headers:
        values = fields.setdefault(f"{place}.{name}", [])
        assert isinstance(values, list)
        values.append(names.header(name, value))


def _add_seen(fields: Fields, case: Case, seen: Sequence[Seen], names: Names) -> None:
    if not case.partial:
        seen = [one for one in seen if one.complete]
    if case.spread:
        counts: dict[str, int] = {}
        for one in seen:
            counts[one.upstream] = counts.get(one.upstream, 0) + 1
        fields["upstream.spread"] = counts
        return
    if case.unordered:
        seen = sorted(seen, key=lambda one: (one.upstream, one.start, sorted(one.headers), one.body))
    fields["upstream.count"] = len(seen)
    if case.connections:
        order = list(dict.fromkeys(one.connection for one in seen))
        fields["upstream.connections"] = [order.index(one.connection) for one in seen]
    for index, one in enumerate(seen):
        place = f"upstream[{index}]"
        fields[f"{place}.name"] = one.upstream
        fields[f"{place}.start"] = names.text(one.start)
        fields[f"{place}.protocol"] = one.protocol
        if one.protocol == "HTTP/2":
            fields[f"{place}.order"] = _order(one.headers)
            fields[f"{place}.reset"] = one.reset
        _add_headers(
            fields, f"{place}.headers", _whole_seconds(one.headers) if index or case.unordered else one.headers, names
        )
        if (":path", check_requests.PATH) in one.headers:
            fields[f"{place}.check"] = check_requests.check_request(one.body, names.value)
        else:
            fields[f"{place}.body"] = names.body(one.body, one.headers)
        _add_headers(fields, f"{place}.trailers", one.trailers, names)
        fields[f"{place}.complete"] = one.complete


def _whole_seconds(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """A retry is told the time that is left, to the millisecond: compare the seconds, rounded up."""
    return [
        (name, str(-(-int(value) // 1000) * 1000) if name == "x-envoy-expected-rq-timeout-ms" else value)
        for name, value in headers
    ]


def parsed_line(line: str) -> dict[str, object]:
    """A line of the access log. One that is not JSON begins with its peer's address and is otherwise kept whole."""
    if line.startswith("{"):
        parsed: dict[str, object] = json.loads(line)
        return parsed
    peer, _, rest = line.partition(" ")
    return {"peer": peer, "line": rest}


def log_fields(case: Case, lines: Sequence[str], names: Names) -> Fields:
    """The access-log lines of one case; a JSON line becomes a field for each of its keys.

    Of a key that begins with ``any-`` only the kind is compared: durations and the like.
    """
    fields: Fields = {"access_log.lines": len(lines)}
    for index, line in enumerate(lines):
        for key, value in parsed_line(line).items():
            if key.startswith("any-"):
                fields[f"access_log[{index}].{key}"] = "<number>" if str(value).isdigit() else value
            elif key != "peer":
                fields[f"access_log[{index}].{key}"] = names.value(value)
    return _kept(case, fields)


def _kept(case: Case, fields: Fields) -> Fields:
    return {name: value for name, value in fields.items() if name not in case.ignore}


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which the proxies differ; a side that lacks the field has None."""

    field: str
    envoy: object
    subject: object

    def __str__(self) -> str:
        return f"{self.field}\n      envoy:   {self.envoy!r}\n      sidecar: {self.subject!r}"


def differences(envoy: Fields, subject: Fields) -> list[Difference]:
    """Every field that is not equal on both sides."""
    return [
        Difference(name, envoy.get(name), subject.get(name))
        for name in sorted(envoy.keys() | subject.keys())
        if envoy.get(name) != subject.get(name)
    ]
