"""The way to the upstream in one function: a whole request of a known shape, from the client's connection to the pool's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sidecar.codec.http1_reader import BODY, DONE
from sidecar.core.characters import NOTHING
from sidecar.express.forward import Forward, compile_forward
from sidecar.express.learning import shape_of
from sidecar.express.plan import Http1RequestShape, RequestShape
from sidecar.express.response import Responses, compile_response_lane
from sidecar.express.shape import CANONICAL_PATH, PATH, REQUEST_VALUES, Pace, differing, without_values

if TYPE_CHECKING:
    from sidecar.express.http2_lane import Http2Lane

_LONGEST_BODY = 16384
_KINDS = 1024
_SHAPES = 1024

Kind = dict[Any, Any]
"""The shapes that connections of one kind send: those of HTTP/1 by the size of their heads behind the path, less than 0 with
a body; those of HTTP/2 by method, authority, whether a body follows, and the names of the fields; and layouts by whether a body
follows and the names of all that is in a header list."""


class ExpressLane:
    """The lane of one connection manager. ``take(connection, data)`` is true if the read was taken care of."""

    __slots__ = (
        "_answers",
        "forward",
        "forward_last",
        "http2",
        "kinds",
        "longest_body",
        "make_stream",
        "makers",
        "manager",
        "normalizes",
        "pace",
        "path",
        "recurring",
        "responses",
        "shapes",
        "take",
        "volatile",
    )  # fmt: skip

    def __init__(
        self,
        manager: Any,
        router: Any,
        make_stream: Callable[..., Any],
        make_upstream_request: Callable[..., Any],
        new_request_id: Callable[[int], bytes],
        date_of: Callable[[int], bytes],
        normalizes: bool,
    ) -> None:
        self.manager = manager
        self.make_stream = make_stream
        self.normalizes = normalizes
        self.open()
        self.kinds: dict[Any, Kind] = {}
        self.recurring: set[int] = set()  # those of the kinds that more than one connection was of
        self.volatile = set(REQUEST_VALUES)
        self.responses: dict[str, Responses] = {}
        self.pace = Pace()
        self.longest_body = min(_LONGEST_BODY, router.retry_budget_bytes)  # that may come with its head
        self.shapes = 0  # learnt since there was room last; what they hold together is bounded
        self.http2: Http2Lane | None = None
        self.makers: tuple[Any, ...] = (router, make_upstream_request, new_request_id, date_of)
        self._answers: Any = None
        self.forward, forward_last = (
            compile_forward(
                self,
                router,
                make_upstream_request,
                new_request_id,
                compile_response_lane(manager, router, date_of, last=last),
                self.answers,
                False,
            )
            for last in (False, True)
        )
        self.forward_last = ending(forward_last)
        self.take = self._compile(router)

    def kind_of(self, info: Any, own: Kind | None = None) -> Kind:
        """The shapes of connections like this one: what the preparation of a request reads of its connection.

        ``own`` is the kind that the connection is of already; it is another one if that was forgotten.
        """
        tls = info.tls
        key = (info.remote_address.ip, info.local_address.port, None if tls is None else tls.identity)
        kind = self.kinds.get(key)
        if kind is None:
            if len(self.kinds) >= _KINDS:
                self._forget()
                self.kinds.clear()
                self.recurring.clear()
            kind = self.kinds[key] = {}
        elif kind is not own:
            self.recurring.add(id(kind))
        return kind

    def kind_to_learn(self, connection: Any) -> Kind | None:
        """The kind of a connection, to which something may be added now; None if not.

        What connections hold of kinds that were forgotten stays empty, so that all that is known can be counted, and taken
        back: one that goes on gets a new kind here.
        """
        if self.path is NOTHING or not self.pace.permits(connection.now):
            return None
        kind = connection.kind = self.kind_of(connection.info, connection.kind)
        return kind

    def may_recur(self, connection: Any) -> bool:
        """Whether another request like this one may come: on this connection, or on the next of clients that open many."""
        return connection.requests > 1 or id(connection.kind) in self.recurring

    def close(self) -> None:
        """Take no more requests until ``open``: no path is plain now, and no request is of a known shape."""
        self.path = NOTHING
        self._forget()

    def end(self) -> None:
        """Take no more requests, and let go of everything: there is another lane, or no connection manager any more."""
        self.close()
        self.kinds.clear()
        self.recurring.clear()
        self.makers = ()
        self._answers = self.http2 = None
        self.forward = self.forward_last = self.take = _nothing

    def open(self) -> None:
        """Take requests again, as they become known."""
        self.path = CANONICAL_PATH if self.normalizes else PATH

    def _forget(self) -> None:
        for kind in self.kinds.values():  # connections go on with theirs
            kind.clear()

    def forget_routes(self) -> None:
        """The routes are others now: requests of known shapes are decided on anew."""
        for kind in self.kinds.values():
            for shape in kind.values():
                shape.forget_routes()

    def learn(self, connection: Any, data: bytes) -> None:
        """Find out what becomes of requests such as this one, which has just gone through the stages."""
        kind = self.kind_to_learn(connection)
        if kind is None:
            return
        at, end = data.find(b" HTTP/1.1\r\n"), data.find(b"\r\n\r\n") + 4
        if at < 0:
            at = data.find(b" HTTP/1.0\r\n")
            if at < 0:
                return
        lines = data[at : end - 4].split(b"\r\n")
        size = end - at if end == len(data) else at - end
        before: Http1RequestShape | None = kind.get(size)
        if before is not None:
            self.volatile |= differing(before.lines, lines, len(self.volatile))
        shape = shape_of(self.manager, connection.info, data[:end], at, len(data) - end, self.volatile)
        if shape is not None:
            shape.lines = without_values(lines, self.volatile)
            shape.forward = self.forward_last if shape.closes else self.forward
            self.keep(kind, size, shape)

    def for_http2(self) -> Http2Lane:
        """The lane of clients that speak HTTP/2: made, and loaded, for the first of them."""
        if self.http2 is None:
            from sidecar.express.http2_lane import Http2Lane

            self.http2 = Http2Lane(self, *self.makers)
        return self.http2

    def accepts(self, path: bytes) -> bool:
        """Whether nothing has to be done to a path."""
        return path.translate(self.path) == path and not (self.normalizes and (b"//" in path or b"/." in path))

    def keep(self, kind: Kind, key: Any, shape: Any) -> None:
        """Remember the shape, or the layout, of one of the ``kinds``."""
        self.shapes += 1
        if self.shapes > _SHAPES:
            self.shapes = 1
            self._forget()
        kind[key] = shape

    def answers(self) -> Any:
        """The way back from hosts that speak HTTP/2: made, and loaded, for the first of them."""
        if self._answers is None:
            from sidecar.express.http2_answers import Answers

            router, _, _, date_of = self.makers
            self._answers = Answers(self.manager, router, date_of)
        return self._answers

    def responses_of(self, cluster_name: str) -> Responses:
        found = self.responses.get(cluster_name)
        if found is None:
            found = self.responses[cluster_name] = Responses()
        return found

    def _compile(self, router: Any) -> Callable[[Any, bytes], bool]:
        manager = self.manager
        clock = manager.worker.clock
        stats = manager.stats
        path_characters = self.path
        normalizes = self.normalizes
        most: int = manager.options.max_request_head_bytes
        longest_body = self.longest_body

        def take(connection: Any, data: bytes) -> bool:
            at = data.find(b" HTTP/1.1\r\n")
            if at < 0:
                at = data.find(b" HTTP/1.0\r\n")
                if at < 0:
                    return False
            size = len(data)
            body = None
            shape = connection.kind.get(size - at)
            if shape is None:
                end = data.find(b"\r\n\r\n", at) + 4
                shape = connection.kind.get(at - end)
                if shape is None:
                    return False
                body = data[end:]
                size = end
            if size > most:
                return False
            pieces = shape.unpack(data, at)
            if pieces[::2] != shape.constants or not data.startswith(shape.start):
                return False
            path = data[shape.path_at : at]
            if path.translate(path_characters) != path:
                return False
            if normalizes and (b"//" in path or b"/." in path):
                return False
            values = pieces[1::2]
            if (values and not shape.accepts(values)) or manager.draining or not connection.keep_alive:
                return False
            if body is not None:
                length = values[shape.length_at]
                if not body or not length.isdigit() or int(length) != len(body) or len(body) > longest_body:
                    return False
            # the connection: Http1Connection.on_head
            now = clock()
            connection.now = now
            connection.requests += 1
            reader = connection.reader
            reader.head_size = size
            stats.downstream_cx_rx_bytes_total += len(data)
            forward = shape.forward
            if body is None:
                reader.state = DONE
                forward(shape, connection, connection, now, path, values, size, None, True)
            else:
                reader.state = BODY
                reader.remaining = len(body)
                if not forward(shape, connection, connection, now, path, values, size, body, False):
                    deliver(connection, body)
            return True

        return take


def ending(forward: Forward) -> Forward:
    """The way of requests that are their connections' last."""

    def forward_last(shape: RequestShape, downstream: Any, connection: Any, *rest: Any) -> bool:
        connection.keep_alive = False
        return forward(shape, downstream, connection, *rest)

    return forward_last


def _nothing(*_: Any) -> bool:
    """What a lane takes that has ended."""
    return False


def deliver(connection: Any, body: bytes) -> None:
    """Go on with the body, after the stages have taken over with the head: Http1Reader._body."""
    reader = connection.reader
    if reader.state == BODY:
        reader.remaining = 0
        reader.state = DONE
        connection.on_data(body, True)
