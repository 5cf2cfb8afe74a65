"""Running the same exchanges in several ways, and all that must come out the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tests.sidecar.http.exchanges import USER_FILTERS, Exchange
from tests.sidecar.http.running import Client, Sidecar

Cut = Callable[[bytes], Sequence[bytes]]


def whole(data: bytes) -> Sequence[bytes]:
    """In one read."""
    return (data,)


def byte_by_byte(data: bytes) -> Sequence[bytes]:
    """Every byte of the first 400 in a read of its own."""
    return [*(data[at : at + 1] for at in range(min(len(data), 400))), *([data[400:]] if len(data) > 400 else [])]


def cut_at(*places: float) -> Cut:
    """In pieces, cut at ``places`` between 0 and 1."""

    def cut(data: bytes) -> Sequence[bytes]:
        marks = sorted({0, len(data), *(int(place * len(data)) for place in places)})
        return [data[start:end] for start, end in pairwise(marks)]

    return cut


_CHUNKED = re.compile(rb"\r\ntransfer-encoding: chunked\r\n", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


def without_chunks(data: bytes) -> bytes:
    """Messages with the boundaries of their chunks taken out."""
    found, at = b"", 0
    while head := _CHUNKED.search(data, at):
        body = data.index(b"\r\n\r\n", head.start()) + 4
        found += data[at:body]
        at = body
        while chunk := _CHUNK.match(data, at):
            size = int(chunk[1], 16)
            at = chunk.end() + size + 2
            if not size:
                at -= 2
                found += b"<end>"
                break
            found += data[chunk.end() : chunk.end() + size]
    return found + data[at:]


def outcome(
    config: Mapping[str, Any], remote: str, exchanges: Sequence[Exchange], requests: Cut, responses: Cut
) -> dict[str, Any]:
    """Everything that is to be compared after the exchanges, one after another over one connection while it lasts."""
    sidecar = Sidecar(config, USER_FILTERS)
    loose = any(exchange.loose for exchange in exchanges)
    normal = without_chunks if loose else bytes
    passed: list[Any] = []
    clients: dict[int, Client] = {}
    for exchange in exchanges:
        client = clients.get(exchange.client)
        if client is None or client.closed:
            if client is not None:
                client.close()
                sidecar.advance(0.01)
            client = clients[exchange.client] = sidecar.client(remote)
        client.send(*requests(exchange.request))
        if exchange.end == "pipelines":
            client.send(*requests(exchange.request))
        if exchange.end == "leaves":
            client.close()
        answers = list(exchange.responses)
        for _ in range(4):
            sidecar.advance(exchange.pause)
            _answer(sidecar, answers, exchange, responses)
            sidecar.advance(0.06)
        passed.append((normal(client.receive()), client.closed, http1_state(client.protocol)))
        sidecar.advance(0.01)
    upstream = [normal(bytes(host.transport.written)) for host in sidecar.hosts]
    pools = sidecar.pools() if not loose else sidecar.under_way()
    logs = {path: list(lines) for path, lines in sidecar.stack.log_files.lines.items()}  # type: ignore[attr-defined]
    next_random = sidecar.worker.random.random()
    stats = _with_what_nobody_reads(sidecar)
    if loose:
        stats = {name: value for name, value in stats.items() if not name.endswith("_tx_bytes_total")}
    sidecar.end()
    return {
        "client": passed,
        "upstream": upstream,
        "logs": logs,
        "stats": stats,
        "pools": pools,
        "dialled": [address.text for address in sidecar.dialer.dialled],
        "random": next_random,
        "left": _with_what_nobody_reads(sidecar) if not loose else None,
    }


def _with_what_nobody_reads(sidecar: Sidecar) -> dict[str, Any]:
    """The statistics; bytes that came behind a fault, in a read of their own, count as read: whole, they were."""
    stats = sidecar.used_stats()
    received = [name for name in stats if name.endswith("_cx_rx_bytes_total")]
    transports = (*sidecar.dialer.made, *(client.transport for client in sidecar.clients))
    stats["read"] = sum(stats.pop(name) for name in received)
    stats["read"] += sum(len(data) for transport in transports for data in transport.undelivered)
    return stats


def _answer(sidecar: Sidecar, answers: list[bytes], exchange: Exchange, cut: Cut) -> None:
    """Every host that was sent something answers: the one of the request in turn, a mirror always the same."""
    for host in sidecar.hosts:
        asked = host.receive()
        if not asked or host.closed or not re.match(rb"[A-Z-]+ \S+ HTTP/1\.1\r\n", asked):
            continue
        mirror = re.search(rb"\r\nhost: [^\r]*-shadow", asked, re.IGNORECASE)
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" if mirror else answers[0]
        if not mirror and len(answers) > 1:
            answers.pop(0)
        if exchange.end == "resets" and not mirror:
            host.reset()
            continue
        host.send(*cut(answer))
        if exchange.end == "closes" and not mirror:
            host.close()


def http1_state(connection: Any) -> Any:
    """What an HTTP/1 connection of a client knows."""
    reader = connection.reader
    return (
        connection.stream is None, connection.keep_alive, connection.requests, connection.closed, connection.closing,
        connection.full, connection.paused, connection.upstream_full, connection.closing or connection.head_began,
        connection.idle_since,
        connection.retire_at, connection.close_at, reader.state, b"".join(reader.held or ()),
        None if reader.partial is None else bytes(reader.partial),  # it grows in place
    )  # fmt: skip


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Where two outcomes differ, and what stands there."""
    if type(expected) is type(found):
        if isinstance(expected, dict):
            keys = sorted({*expected, *found}, key=str)
            return [line for key in keys for line in differences(expected.get(key), found.get(key), f"{where}.{key}")]
        if isinstance(expected, (list, tuple)) and len(expected) == len(found):
            pairs = enumerate(zip(expected, found, strict=True))
            return [line for at, (one, other) in pairs for line in differences(one, other, f"{where}[{at}]")]
    return [] if expected == found else [f"{where}: {found!r} is not {expected!r}"]
