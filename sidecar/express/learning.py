"""What becomes of a request of a new shape: found out by what the stages make of one."""

from __future__ import annotations

from collections.abc import Collection
from random import Random
from typing import Any

from sidecar.codec.errors import ProtocolError
from sidecar.codec.http1_head import HTTP_1_1_ONLY, VERSIONS, parse_request_head
from sidecar.codec.wire import FieldLines
from sidecar.core.head import RequestHead
from sidecar.express.heads import OpenField, Template
from sidecar.express.plan import Http1RequestShape, Outcome
from sidecar.express.shape import cut

_METHODS = frozenset((b"GET", b"DELETE"))
_METHODS_WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH", b"GET", b"DELETE"))
_NEVER = frozenset(
    (b"expect", b"upgrade", b"te", b"http2-settings", b"transfer-encoding", b"keep-alive",
     b"proxy-connection", b"x-forwarded-client-cert", b"x-envoy-internal")
)  # fmt: skip
_HARMLESS = frozenset((b"x-envoy-internal", b"x-envoy-external-address", b"x-envoy-decorator-operation"))


def shape_of(
    manager: Any, info: Any, data: bytes, at: int, length: int, volatile: Collection[bytes]
) -> Http1RequestShape | None:
    """The shape of the request whose head is ``data``, behind whose path (at ``at``) ``length`` bytes of body came.

    None if it is not plain. It has gone through the stages already, which found nothing wrong with it.
    """
    pieces = cut(data[at:], volatile)
    if pieces is None:
        return None
    try:
        versions = VERSIONS if manager.options.accept_http_10 else HTTP_1_1_ONLY
        head, framing = parse_request_head(data[:-4], FieldLines(), manager.options.max_request_fields, versions)
        if manager.judge is not None:
            if any(b"_" in name for name in head.index):
                return None
            manager.judge(head)
    except ProtocolError:
        return None
    index = head.index
    connection = index.get(b"connection", b"").lower()
    closes = connection == b"close" or (head.version == 10 and not connection)
    if (
        framing != length
        or head.method not in (_METHODS_WITH_BODY if length else _METHODS)
        or (b"content-length" in index) is not bool(length)
        or not _NEVER.isdisjoint(index)
        or not (closes or (head.version == 11 and connection in (b"", b"keep-alive")))
        or at != len(head.method) + 1 + len(head.path)
    ):
        return None
    outcome = outcome_of(manager, info, head, pieces.names, data)
    if outcome is None:
        return None
    return Http1RequestShape(pieces, head, closes, outcome)


def outcome_of(manager: Any, info: Any, head: RequestHead, names: tuple[bytes, ...], data: bytes) -> Outcome | None:
    """What the preparation makes of ``head`` where the fields called ``names`` are open; None if that depends on them.

    ``data`` is where everything is found that came with the request. ``head`` is changed.
    """
    path = head.path
    given = {name: head.index[name] for name in names}
    trial = _Trial(info, head)
    if manager.prepare(trial) or trial.answered or head.path != path or head.authority == b"":
        return None
    if any(name.startswith(b"x-envoy-") and name not in _HARMLESS for name in head.index):
        return None
    order: list[bytes] = []
    opened: list[OpenField] = []
    generated = -1
    for place, (name, value) in enumerate(head.fields):
        if name in given and value is given[name]:
            pass
        elif name == b"x-request-id" and value != given.get(name) and value not in data:
            generated = len(order)
        elif name in given:
            return None
        else:
            continue
        opened.append((place, name, len(order)))
        order.append(name)
    replaced = generated >= 0 and b"x-request-id" in given
    incoming = [name for name in order if name in given]
    if incoming != list(names) or len(set(order)) != len(order) or (0 <= generated < len(order) - 1 and not replaced):
        return None
    template = Template(head.fields, head.index, tuple(opened))
    remote_address = None if trial.remote_address is info.remote_address else trial.remote_address
    return Outcome(template, generated, replaced, remote_address)


class _Trial:
    """A stream for trying out what the preparation makes of a head: nothing that happens to it is counted or sent.

    It is its own worker and connection manager, with dice of its own, so that a trial changes no run under a seed.
    """

    def __init__(self, info: Any, request: RequestHead) -> None:
        self.connection = info
        self.remote_address = info.remote_address
        self.request = request
        self.answered = False
        self.worker = self.manager = self
        self.stats = _Counts()
        self.random = Random(0)

    def reply(self, *_: Any, **__: Any) -> bool:
        self.answered = True
        return True

    refuse = continue_request = reply


class _Counts:
    """Counts whatever it is asked to, for nobody."""

    def __getattr__(self, name: str) -> int:
        return 0
