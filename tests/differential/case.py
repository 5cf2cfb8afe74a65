"""What one differential case is made of: what the client does, what the upstreams answer, what may be compared.

Cases are data. The tables are in ``tests/differential/cases/``; ``runner.py`` carries one out against a proxy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.differential.http2_steps import ClientStep, StreamStep

Header = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes on a client connection (opened on first use)."""

    data: bytes
    connection: int = 0


@dataclass(frozen=True, slots=True)
class AwaitResponses:
    """Wait until the connection has delivered this many complete final responses (or was closed)."""

    count: int
    connection: int = 0


@dataclass(frozen=True, slots=True)
class AwaitBytes:
    """Wait until these bytes have arrived on the connection (or it was closed)."""

    data: bytes
    connection: int = 0


@dataclass(frozen=True, slots=True)
class AwaitUpstream:
    """Wait until the upstreams have begun to receive this many requests or raw connections in this case."""

    count: int


@dataclass(frozen=True, slots=True)
class AwaitClose:
    """Wait until the proxy has closed the connection."""

    connection: int = 0


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for some seconds: only where the lapse of time is what the case is about."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Finish:
    """Close the client's sending side (FIN) and go on reading."""

    connection: int = 0


@dataclass(frozen=True, slots=True)
class Abort:
    """Reset the client connection (RST)."""

    connection: int = 0


Step = Send | AwaitResponses | AwaitBytes | AwaitUpstream | AwaitClose | Pause | Finish | Abort | ClientStep


@dataclass(frozen=True, slots=True)
class Delay:
    """The upstream waits for some seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ReadBody:
    """The upstream reads the request to its end before it goes on."""


@dataclass(frozen=True, slots=True)
class ReadUntil:
    """A raw upstream reads until it has seen these bytes (or the end)."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The upstream closes its connection (FIN)."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The upstream resets its connection (RST)."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The upstream, having switched protocols, sends back in capitals whatever it receives, until the end."""


UpstreamStep = bytes | Delay | ReadBody | ReadUntil | Close | Reset | Tunnel | StreamStep


@dataclass(frozen=True, slots=True)
class Reply:
    """The steps with which an upstream answers one request (or one raw connection)."""

    steps: tuple[UpstreamStep, ...]


def reply(
    status: int = 200,
    body: bytes | None = None,
    headers: Sequence[Header] = (),
    *,
    reason: str = "",
    chunks: Sequence[bytes] | None = None,
    trailers: Sequence[Header] = (),
    delay: float = 0.0,
    length: bool = True,
    version: str = "HTTP/1.1",
    early: bool = False,
    then: Sequence[UpstreamStep] = (),
) -> Reply:
    """A response: ``{upstream}`` in the body stands for the upstream's name; ``early`` answers before the body is read.

    ``chunks`` sends it chunked, with ``trailers``; ``length=False`` leaves out the Content-Length.
    """
    content = b"from {upstream}" if body is None and chunks is None else body or b""
    lines = [f"{version} {status} {reason or 'Reason'}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if chunks is not None:
        lines.append("transfer-encoding: chunked")
        content = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n"
        content += b"".join(f"{name}: {value}\r\n".encode() for name, value in trailers) + b"\r\n"
    elif length:
        lines.append("content-length: {length}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    before: tuple[UpstreamStep, ...] = () if early else (ReadBody(),)
    pause: tuple[UpstreamStep, ...] = (Delay(delay),) if delay else ()
    return Reply((*before, *pause, head + content, *then))


OK = reply()


@dataclass(frozen=True, slots=True)
class Case:
    """One exchange. ``bootstrap`` and ``listener`` say where, ``steps`` what the client does.

    methods: the method of each request on each connection, in order: a response to HEAD or CONNECT has no body. As many
        final responses are awaited as there are methods; an empty tuple means that the connection is raw TCP.
    streams: the connections that speak HTTP/2, each with the streams whose end is awaited.
    upstream_settings: what the upstreams announce in their SETTINGS where they are spoken to in HTTP/2.
    upstreams: replies by upstream name, in order, the last repeating; ``*`` is for all that are not named.
    upstream_requests: wait until the upstreams saw this many, where the client cannot know (mirrors).
    unordered: requests arrive at the upstreams in no fixed order.
    spread: compare only how many requests each upstream saw: for load balancers that begin at a random host.
    ignore: fields of the outcome that are not compared since Envoy itself does not repeat them.
    linger: how long to watch a connection that ought to stay open, in seconds.
    deadline: how long to wait for what is expected, in seconds.
    access_log: whether the lines that it causes are compared too.
    connections: compare also which requests shared a connection to the upstream.
    partial: whether requests that reached an upstream only in part are compared. Whether they do at all is a matter of
        microseconds where one read brings both a good head and what is wrong with its body.

    In what is sent, ``{port-a}`` stands for the port of upstream ``a``, ``{address-a}`` for its address as a session's
    header has it, and ``{cookie-a}`` as a session's cookie has it.
    """

    name: str
    bootstrap: str
    steps: tuple[Step, ...]
    listener: str = "http"
    methods: Mapping[int, tuple[str, ...]] = field(default_factory=lambda: {0: ("GET",)})
    streams: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    upstreams: Mapping[str, tuple[Reply, ...]] = field(default_factory=dict)
    upstream_settings: Mapping[int, int] = field(default_factory=dict)
    upstream_requests: int = 0
    unordered: bool = False
    spread: bool = False
    ignore: tuple[str, ...] = ()
    linger: float = 0.01
    deadline: float = 5.0
    access_log: bool = True
    connections: bool = False
    partial: bool = True


def request(
    method: str,
    target: str,
    headers: Sequence[Header] = (),
    *,
    host: str | None = "a.test",
    body: bytes = b"",
    chunks: Sequence[bytes] | None = None,
    trailers: Sequence[Header] = (),
    version: str = "HTTP/1.1",
) -> bytes:
    """The bytes of one well-formed request."""
    lines = [f"{method} {target} {version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in headers]
    if chunks is not None:
        lines.append("Transfer-Encoding: chunked")
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n"
        body += b"".join(f"{name}: {value}\r\n".encode() for name, value in trailers) + b"\r\n"
    elif body:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def turns(*requests: bytes, pause: float = 0.0) -> list[Step | bytes]:
    """Requests on one connection, each after the answer to the one before and a pause in seconds."""
    steps: list[Step | bytes] = []
    for number, one in enumerate(requests, 1):
        steps += [one, AwaitResponses(number)]
        if pause:
            steps.append(Pause(pause))
    return steps


class Table:
    """Collects the cases of one subject; every name gets the subject in front: ``routing/prefix``."""

    def __init__(self, subject: str, bootstrap: str) -> None:
        self.subject = subject
        self.bootstrap = bootstrap
        self.cases: list[Case] = []

    def add(
        self,
        name: str,
        *steps: Step | bytes,
        methods: Mapping[int, tuple[str, ...]] | Sequence[str] | None = None,
        streams: Mapping[int, tuple[int, ...]] | None = None,
        upstream: Sequence[Reply] | Reply | Mapping[str, Sequence[Reply]] = (),
        upstream_settings: Mapping[int, int] | None = None,
        bootstrap: str | None = None,
        listener: str = "http",
        upstream_requests: int = 0,
        unordered: bool = False,
        spread: bool = False,
        ignore: tuple[str, ...] = (),
        linger: float = 0.01,
        deadline: float = 5.0,
        access_log: bool = True,
        connections: bool = False,
        partial: bool = True,
    ) -> None:
        """Add a case. Bare bytes are sent on connection 0; bare replies are for every upstream."""
        sent = tuple(Send(step) if isinstance(step, bytes) else step for step in steps)
        if methods is None:
            methods = _methods_of(sent)
        elif not isinstance(methods, Mapping):
            methods = {0: tuple(methods)}
        if isinstance(upstream, Reply):
            upstream = (upstream,)
        replies = upstream if isinstance(upstream, Mapping) else {"*": upstream}
        self.cases.append(
            Case(
                name=f"{self.subject}/{name}",
                bootstrap=bootstrap or self.bootstrap,
                steps=sent,
                listener=listener,
                methods=methods,
                streams=streams or {},
                upstream_settings=upstream_settings or {},
                upstreams={upstream_name: tuple(given) for upstream_name, given in replies.items()},
                upstream_requests=upstream_requests,
                unordered=unordered,
                spread=spread,
                ignore=ignore,
                linger=linger,
                deadline=deadline,
                access_log=access_log,
                connections=connections,
                partial=partial,
            )
        )

    def raw(self, name: str, *steps: Step | bytes, listener: str = "tcp", **options: Any) -> None:
        """Add a case without HTTP on the client's side; the options are those of `add`."""
        self.add(name, *steps, methods={}, listener=listener, **options)

    def get(
        self,
        name: str,
        target: str = "/",
        headers: Sequence[Header] = (),
        *,
        host: str | None = "a.test",
        method: str = "GET",
        body: bytes = b"",
        **options: Any,
    ) -> None:
        """Add a case of one well-formed request; the options are those of `add`."""
        self.add(name, request(method, target, headers, host=host, body=body), methods=(method,), **options)


def _methods_of(steps: Sequence[Step]) -> dict[int, tuple[str, ...]]:
    """One request for each Send, with the method that its first word names."""
    methods: dict[int, tuple[str, ...]] = {}
    for step in steps:
        if isinstance(step, Send):
            method = step.data.lstrip(b"\r\n").split(b" ", 1)[0].decode("latin-1")
            methods[step.connection] = (*methods.get(step.connection, ()), method)
    return methods
