"""The raw-socket client: it writes exactly the bytes of a case and takes the answers apart, forgiving nothing."""

from __future__ import annotations

import itertools
import selectors
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from tests.differential.case import (
    Abort,
    AwaitBytes,
    AwaitClose,
    AwaitResponses,
    AwaitUpstream,
    Case,
    Finish,
    Pause,
    Send,
    Step,
)
from tests.differential.http2_client import Transcript
from tests.differential.http2_steps import (
    AwaitData,
    AwaitGoaway,
    AwaitHead,
    AwaitPong,
    AwaitSettled,
    AwaitStream,
    ClientStep,
)

CLOSE_WAIT = 2.0
_SOURCE_PORTS = itertools.cycle(range(10000, 19999))


@dataclass(slots=True)
class Response:
    """One response as it came: names keep their case, the body is without its framing."""

    start: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = False

    def values(self, name: str) -> str:
        """Every value of a header, joined; empty when it is not there."""
        return ", ".join(value for given, value in self.headers if given.lower() == name).lower()


class Connection:
    """One client connection and what has arrived on it; ``transcript`` where it speaks HTTP/2."""

    def __init__(
        self, address: tuple[str, int], methods: tuple[str, ...], transcript: Transcript | None = None
    ) -> None:
        self.methods = methods
        self.transcript = transcript
        self.received = b""
        self.closed = False
        self.finished = False
        self.socket, self.local_port = _connected(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self) -> None:
        """Take what is there; the end and a reset are both a close."""
        try:
            data = self.socket.recv(1 << 18)
        except ConnectionError:
            data = b""
        if data:
            self.received += data
            if self.transcript is not None:
                self.write(self.transcript.receive(data))
        else:
            self.closed = True

    def write(self, data: bytes) -> None:
        """Send everything, reading meanwhile; a proxy that closed early is no error here."""
        self.socket.setblocking(True)
        self.socket.settimeout(5)
        view = memoryview(data)
        while view and not self.closed:
            try:
                view = view[self.socket.send(view[: 1 << 16]) :]
            except (ConnectionError, TimeoutError):
                return

    def close(self, *, reset: bool = False) -> None:
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def responses(self) -> tuple[list[Response], list[Response], bytes]:
        """Final responses, interim responses, and the bytes that belong to no response (a tunnel's, or garbage)."""
        if not self.methods:
            return [], [], self.received
        final: list[Response] = []
        interim: list[Response] = []
        rest = self.received
        while rest and b"\r\n\r\n" in rest and len(final) < len(self.methods):
            head, _, after = rest.partition(b"\r\n\r\n")
            start, *lines = head.decode("latin-1").split("\r\n")
            if not start.startswith("HTTP/"):
                break
            response = Response(start, [_header(line) for line in lines])
            status = start.split(" ")[1] if " " in start else ""
            if status.startswith("1") and status != "101":
                interim.append(response)
                response.complete = True
                rest = after
                continue
            method = self.methods[len(final)]
            final.append(response)
            if status == "101" or (method == "CONNECT" and status.startswith("2")):
                response.complete = True
                return final, interim, after
            rest = self._body(response, method, status, after)
            if not response.complete:
                break
        return final, interim, rest

    def _body(self, response: Response, method: str, status: str, data: bytes) -> bytes:
        """Fill in the body by RFC 9112 section 6.3 and return what follows it."""
        if method == "HEAD" or status in ("204", "304"):
            response.complete = True
            return data
        if "chunked" in response.values("transfer-encoding"):
            return _chunked(response, data)
        length = response.values("content-length")
        if length:
            response.body, rest = data[: int(length)], data[int(length) :]
            response.complete = len(response.body) == int(length)
            return rest
        response.body = data
        response.complete = self.closed
        return b""


def _connected(address: tuple[str, int]) -> tuple[socket.socket, int]:
    """A connection from a port that no other connection of the run has had: access-log lines are told apart by it."""
    while True:
        port = next(_SOURCE_PORTS)
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.settimeout(5)
        try:
            connection.bind(("127.0.0.1", port))
        except OSError:
            connection.close()
            continue
        connection.connect(address)
        return connection, port


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.strip(" ")


def _chunked(response: Response, data: bytes) -> bytes:
    while b"\r\n" in data:
        size, _, after = data.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if length == 0:
            if after.startswith(b"\r\n"):
                response.complete = True
                return after[2:]
            trailers, end, rest = after.partition(b"\r\n\r\n")
            if end:
                response.trailers = [_header(line) for line in trailers.decode("latin-1").split("\r\n")]
                response.complete = True
                return rest
            return data
        if len(after) < length + 2:
            response.body += after[:length]
            return b""
        response.body += after[:length]
        data = after[length + 2 :]
    return data


class Client:
    """All client connections of one case."""

    def __init__(self, address: tuple[str, int], case: Case, upstream_count: Callable[[], int]) -> None:
        self.address = address
        self.case = case
        self.upstream_count = upstream_count
        self.connections: dict[int, Connection] = {}
        self.carried_out = 0.0

    def run(self) -> None:
        """Carry out the steps, then wait for what the case expects and watch for what it does not."""
        self.carry_out()
        self.linger()

    def carry_out(self) -> None:
        """Carry out the steps, then wait for what the case expects."""
        for step in self.case.steps:
            self._step(step)
        for number in self.case.methods:
            self._wait(partial(self._answered, number, len(self.case.methods[number])), self.case.deadline)
        for number, streams in self.case.streams.items():
            self._until(number, partial(Transcript.over, streams=streams))
        closing = [connection for connection in self.connections.values() if self._should_close(connection)]
        if closing:
            self._wait(lambda: all(connection.closed for connection in closing), min(CLOSE_WAIT, self.case.deadline))
        self.carried_out = time.monotonic()

    @property
    def satisfied(self) -> bool:
        """Whether all that was awaited has come, so that nothing that is done to the upstreams can change it."""
        return all(self._answered(number, len(methods)) for number, methods in self.case.methods.items()) and all(
            (transcript := self._connection(number).transcript) is not None and transcript.over(streams)
            for number, streams in self.case.streams.items()
        )

    def linger(self) -> None:
        """Watch what ought to stay open, until the time for that is over since the steps were carried out."""
        if any(not connection.closed for connection in self.connections.values()):
            left = self.carried_out + self.case.linger - time.monotonic()
            self._wait(lambda: all(connection.closed for connection in self.connections.values()), left)

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()

    def _connection(self, number: int) -> Connection:
        if number not in self.connections:
            transcript = Transcript() if number in self.case.streams else None
            self.connections[number] = Connection(self.address, self.case.methods.get(number, ()), transcript)
        return self.connections[number]

    def _step(self, step: Step) -> None:
        match step:
            case Send(data, number):
                self._connection(number).write(data)
            case AwaitResponses(count, number):
                self._wait(lambda: self._answered(number, count), self.case.deadline)
            case AwaitBytes(data, number):
                connection = self._connection(number)
                self._wait(lambda: connection.closed or data in connection.received, self.case.deadline)
            case AwaitUpstream(count):
                self._wait(lambda: self.upstream_count() >= count, self.case.deadline)
            case AwaitClose(number):
                connection = self._connection(number)
                self._wait(lambda: connection.closed, self.case.deadline)
            case Pause(seconds):
                self._wait(lambda: False, seconds)
            case Finish(number):
                connection = self._connection(number)
                if not connection.closed:
                    connection.socket.shutdown(socket.SHUT_WR)
            case Abort(number):
                self._connection(number).close(reset=True)
                self._connection(number).closed = True
            case _:
                self._http2_step(step)

    def _http2_step(self, step: ClientStep) -> None:
        match step:
            case AwaitStream(stream):
                self._until(step.connection, lambda seen: seen.over([stream]))
            case AwaitHead(stream, heads):
                self._until(step.connection, lambda seen: seen.stream(stream).heads >= heads)
            case AwaitData(stream, octets):
                self._until(step.connection, lambda seen: len(seen.stream(stream).body) >= octets)
            case AwaitSettled():
                self._until(step.connection, lambda seen: seen.settled)
            case AwaitPong(count):
                self._until(step.connection, lambda seen: seen.pongs >= count)
            case AwaitGoaway():
                self._until(step.connection, lambda seen: bool(seen.goaways))

    def _until(self, number: int, condition: Callable[[Transcript], bool]) -> None:
        """Wait for something that the transcript shows, or for the end of the connection."""
        connection = self._connection(number)
        transcript = connection.transcript
        assert transcript is not None, f"{self.case.name}: connection {number} does not speak HTTP/2"
        self._wait(lambda: connection.closed or condition(transcript), self.case.deadline)

    def _answered(self, number: int, count: int) -> bool:
        connection = self.connections.get(number)
        if connection is None or connection.closed:
            return True
        return sum(response.complete for response in connection.responses()[0]) >= count

    @staticmethod
    def _should_close(connection: Connection) -> bool:
        """Whether what was said means that the proxy closes: only to know how long to look."""
        if connection.transcript is not None:
            return bool(connection.transcript.goaways)
        final = connection.responses()[0]
        if connection.closed or not final:
            return False
        last = final[-1]
        return "close" in last.values("connection") or not last.complete

    def _wait(self, until: Callable[[], bool], seconds: float) -> None:
        """Read on every connection until the condition holds or the time is up; what has come by then is read."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            for connection in self.connections.values():
                if not connection.closed:
                    selector.register(connection.socket, selectors.EVENT_READ, connection)
            while not until():
                left = deadline - time.monotonic()
                for key, _ in selector.select(max(min(left, 0.01), 0.0)):
                    key.data.read()
                    if key.data.closed:
                        selector.unregister(key.fileobj)
                if left <= 0:
                    return


def responses_by_connection(client: Client) -> Mapping[int, tuple[list[Response], list[Response], bytes, bool]]:
    """For each connection: final responses, interim ones, other bytes, and whether the proxy closed it."""
    return {
        number: (*connection.responses(), connection.closed)
        for number, connection in sorted(client.connections.items())
        if connection.transcript is None
    }
