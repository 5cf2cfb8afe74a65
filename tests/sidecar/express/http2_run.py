"""A sidecar between clients and hosts of either protocol, of which at least one side speaks HTTP/2.

A run is a list of deeds (``Deed``), one after another: of clients, of hosts, of the clock. Everything that the others
see of it is written down deed by deed, by its meaning: octets may stand for it in different ways.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from sidecar.codec import http2_frames as frame
from tests.sidecar.http.exchanges import USER_FILTERS
from tests.sidecar.http.http2_peer import Field, Http2Peer, PeerStream
from tests.sidecar.http.running import Client, Host, Sidecar, http2_codec_state
from tests.sidecar.http.ways import http1_state

OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_REQUEST: Final = re.compile(rb"(?<![A-Z])[A-Z]+ \S+ HTTP/1\.1\r\n")  # no time goes into bodies of capitals
_ENDS: Final = {
    "ends not found": (b"grpc-status", b"5"),
    "ends unavailable": (b"grpc-status", b"14"),
    "ends without a status": (b"x-sum", b"0"),
}
_CODES: Final = (frame.CANCEL, frame.NO_ERROR, frame.REFUSED_STREAM, frame.INTERNAL_ERROR)


@dataclass(frozen=True)
class Peers:
    """Who there is: ``clients`` are how they write their headers, None for one that speaks HTTP/1; so is ``host`` for all
    hosts. ``settings`` are what the HTTP/2 peers begin with; ``generous`` whether they give windows back at once."""

    clients: tuple[str | None, ...]
    host: str | None
    client_settings: tuple[tuple[int, int], ...] = ()
    host_settings: tuple[tuple[int, int], ...] = ()
    generous: bool = True


@dataclass(frozen=True)
class Deed:
    """``what`` somebody does. ``who`` and ``which`` choose among those there are, modulo their number; ``fields`` is a
    head; ``held``: what is sent leaves with the next that the same peer sends."""

    what: str
    who: int = 0
    which: int = 0
    fields: tuple[Field, ...] = ()
    body: str = ""
    size: int = 0
    held: bool = False


def with_http2_hosts(config: Mapping[str, Any], http2: Mapping[str, Any]) -> dict[str, Any]:
    """The same configuration with clusters that speak HTTP/2."""
    changed: dict[str, Any] = orjson.loads(orjson.dumps(config))
    for cluster in changed["static_resources"]["clusters"]:
        options = cluster.setdefault("typed_extension_protocol_options", {}).setdefault(
            OPTIONS, {"@type": f"type.googleapis.com/{OPTIONS}"}
        )
        options["explicit_http_config"] = {"http2_protocol_options": dict(http2)}
    return changed


class HttpClient:
    """A client by HTTP/1: one request after another."""

    def __init__(self, client: Client) -> None:
        self.raw = client
        self.peer: Http2Peer | None = None

    def ask(self, fields: Sequence[Field], body: bytes) -> None:
        index = dict(fields)
        lines = b"".join(b"%b: %b\r\n" % field for field in fields if field[0][:1] != b":" and field[0] != b"te")
        length = b"content-length: %d\r\n" % len(body) if body and b"content-length" not in index else b""
        self.raw.send(
            b"%b %b HTTP/1.1\r\nhost: %b\r\n%b%b\r\n%b"
            % (index[b":method"], index[b":path"], index[b":authority"], lines, length, body)
        )

    def seen(self) -> Any:
        return self.raw.receive(), self.raw.closed


class HttpHost:
    """A host by HTTP/1, that answers each request once."""

    def __init__(self, host: Host) -> None:
        self.raw = host
        self.peer: Http2Peer | None = None
        self.asked: list[bytes] = []

    def seen(self) -> Any:
        new = self.raw.receive()
        self.asked += [new[match.start() : match.end()] for match in _REQUEST.finditer(new)]
        return new, self.raw.closed


class Http2End:
    """A client or a host by HTTP/2."""

    def __init__(self, end: Client | Host, server: bool, style: str, settings: dict[int, int], generous: bool) -> None:
        self.raw = end
        self.generous = generous
        self.peer = Http2Peer(self._deliver, server, style, settings)

    def _deliver(self, data: bytes) -> None:
        if not self.raw.transport.closing:
            self.raw.send(data)

    def seen(self) -> Any:
        seen: list[Any] = []
        for _ in range(50):
            new = self.peer.receive(self.raw.receive())
            if not new:
                break
            seen += new
            if self.generous:
                for stream_id in sorted(self.peer.received):
                    self.peer.give_back(stream_id)
            self.peer.flush()
        return seen, self.raw.closed


End = Http2End | HttpClient | HttpHost


class Run:
    """One run. ``lane`` is false for one in which every request goes through the stages."""

    def __init__(
        self, config: Mapping[str, Any], remote: str, peers: Peers, lane: bool, filters: Mapping[str, Any] | None = None
    ) -> None:
        self.sidecar = Sidecar(config, filters or USER_FILTERS)
        if not lane:
            self.sidecar.manager.lane = None
        self.peers = peers
        self.remote = remote
        self.clients: list[End | None] = [None] * len(peers.clients)
        self.hosts: list[End] = []
        self.everybody: list[End] = []
        self.numbers = 0
        self.seen: list[Any] = []

    def client(self, number: int) -> End:
        number %= len(self.clients)
        client = self.clients[number]
        if client is None or self._transport(client).closing or self._transport(client).half_closed:
            style = self.peers.clients[number]
            raw = self.sidecar.client(self.remote)
            settings = dict(self.peers.client_settings)
            client = HttpClient(raw) if style is None else Http2End(raw, False, style, settings, self.peers.generous)
            self.clients[number] = client
            self.everybody.append(client)
        return client

    def do(self, deed: Deed) -> None:
        """Do it, and look what everybody saw of it."""
        getattr(self, "_" + deed.what)(deed)
        self._look()

    def _look(self) -> None:
        loop = self.sidecar.loop
        loop.settle()
        for _ in range(20):
            for host in self.sidecar.hosts[len(self.hosts) :]:
                style = self.peers.host
                settings = dict(self.peers.host_settings)
                end = HttpHost(host) if style is None else Http2End(host, True, style, settings, self.peers.generous)
                self.hosts.append(end)
                self.everybody.append(end)
                if end.peer is not None:
                    end.peer.flush()
            turn = [(number, seen) for number, end in enumerate(self.everybody) if (seen := end.seen())[0]]
            if not turn:
                break
            self.seen.append(turn)
        ended = [number for number, end in enumerate(self.everybody) if self._transport(end).closing]
        self.seen.append(("ended", ended))

    def _transport(self, end: End) -> Any:
        return end.raw.transport

    def _sent(self, end: End, deed: Deed) -> None:
        if end.peer is not None and not deed.held:
            end.peer.flush()

    def _content(self, size: int) -> bytes:
        self.numbers += 1
        return bytes((33 + self.numbers % 90,)) * size

    # clients

    def _ask(self, deed: Deed) -> None:
        client = self.client(deed.who)
        peer = client.peer
        body = self._content(deed.size)
        fields = [(name, b"%d" % deed.size if name == b"content-length" else value) for name, value in deed.fields]
        if peer is None:
            assert isinstance(client, HttpClient)
            client.ask(fields, b"" if deed.body == "none" else body)
            return
        stream = peer.open(fields, deed.body == "none")
        if stream is not None and deed.body not in ("none", "later"):
            self._body(peer, stream, body, deed)
        self._sent(client, deed)

    def _body(self, peer: Http2Peer, stream: PeerStream, body: bytes, deed: Deed) -> None:
        """A body as ``deed.body`` says; where windows do not admit it, it stays unfinished."""
        kind = deed.body
        if kind == "pieces":
            peer.data(stream, body, True, 1 + len(body) // 3)
        elif kind == "padded":
            peer.data(stream, body, True, 1 + len(body) // 2, 7)
        elif kind == "empty end":
            peer.data(stream, body, False)
            peer.data(stream, b"", True)
        elif kind == "trailers":
            if peer.data(stream, body, False):
                peer.head(stream, [(b"grpc-status", b"0"), (b"x-sum", b"%d" % len(body))], True)
        elif kind in _ENDS:
            if peer.data(stream, body, False):
                peer.head(stream, [_ENDS[kind]], True)
        elif kind == "unfinished":
            peer.data(stream, body, False)
        elif kind == "separate":
            peer.flush()
            peer.data(stream, body, True)
        else:
            peer.data(stream, body, True)

    def _client_streams(self, deed: Deed) -> tuple[End, Http2Peer, PeerStream] | None:
        client = self.client(deed.who)
        peer = client.peer
        if peer is None:
            return None
        streams = [one for one in peer.streams.values() if not one.dead and not (one.sent_end and one.got_end)]
        return (client, peer, streams[deed.which % len(streams)]) if streams else None

    def _more(self, deed: Deed) -> None:
        """More of a request's body."""
        found = self._client_streams(deed)
        if found is not None:
            client, peer, stream = found
            if stream.may_send:
                self._body(peer, stream, self._content(deed.size), deed)
            self._sent(client, deed)

    def _cancel(self, deed: Deed) -> None:
        found = self._client_streams(deed)
        if found is not None:
            client, peer, stream = found
            peer.reset(stream, _CODES[deed.size % 2])
            self._sent(client, deed)

    # hosts

    def _awaiting(self, headed: bool) -> list[tuple[End, Http2Peer | None, PeerStream | None]]:
        """Hosts of whom a response is awaited, or (``headed``) whose response has begun, with its stream."""
        found: list[tuple[End, Http2Peer | None, PeerStream | None]] = []
        for host in self.hosts:
            if self._transport(host).closing:
                continue
            if isinstance(host, HttpHost):
                if host.asked and not headed:
                    found.append((host, None, None))
            elif host.peer is not None:
                found += [
                    (host, host.peer, one)
                    for one in host.peer.streams.values()
                    if one.may_send and one.sent_head == headed
                ]
        return found

    def _answer(self, deed: Deed) -> None:
        awaiting = self._awaiting(False)
        if not awaiting:
            return
        host, peer, stream = awaiting[deed.which % len(awaiting)]
        body = self._content(deed.size)
        fields = [(name, b"%d" % deed.size if name == b"content-length" else value) for name, value in deed.fields]
        if peer is None:
            assert isinstance(host, HttpHost)
            self._answer_by_http1(host, fields, body, deed)
            return
        assert stream is not None
        status = dict(fields)[b":status"]
        if deed.body == "interim first":
            peer.head(stream, [(b":status", b"103"), (b"link", b"x")], False)
            stream.sent_head = stream.sent_end = False
        bodyless = deed.body == "none" or stream.method == b"HEAD" or status in (b"204", b"304")
        if bodyless and stream.method != b"HEAD":
            fields = [field for field in fields if field[0] != b"content-length"]
        peer.head(stream, fields, bodyless)
        if not bodyless and deed.body != "later":
            self._body(peer, stream, body, deed)
        self._sent(host, deed)

    def _answer_by_http1(self, host: HttpHost, fields: list[Field], body: bytes, deed: Deed) -> None:
        line = host.asked.pop(0)
        status = dict(fields)[b":status"]
        lines = b"".join(b"%b: %b\r\n" % field for field in fields if field[0] not in (b":status", b"content-length"))
        if line.startswith(b"HEAD") or status in (b"204", b"304"):
            answer = lines + b"\r\n"
        elif deed.body == "trailers":
            answer = lines + b"transfer-encoding: chunked\r\n\r\n"
            answer += (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\nx-sum: 1\r\n\r\n"
        else:
            answer = lines + b"content-length: %d\r\n\r\n" % len(body) + body
        interim = b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" if deed.body == "interim first" else b""
        whole = interim + b"HTTP/1.1 %b OK\r\n" % status + answer
        if deed.body in ("pieces", "separate", "later"):
            host.raw.send(whole[: -len(body) // 2 or None], whole[-len(body) // 2 or len(whole) :])
        else:
            host.raw.send(whole)
        if deed.body == "unfinished":
            host.raw.close()

    def _more_of_answer(self, deed: Deed) -> None:
        answering = self._awaiting(True)
        if answering:
            host, peer, stream = answering[deed.which % len(answering)]
            assert peer is not None
            assert stream is not None
            self._body(peer, stream, self._content(deed.size), deed)
            self._sent(host, deed)

    def _host_resets(self, deed: Deed) -> None:
        concerned = self._awaiting(bool(deed.size & 4)) or self._awaiting(not deed.size & 4)
        if concerned:
            host, peer, stream = concerned[deed.which % len(concerned)]
            if peer is None or stream is None:
                assert isinstance(host, HttpHost)
                host.raw.reset()
            else:
                peer.reset(stream, _CODES[deed.size % 4])
                self._sent(host, deed)

    def _host(self, deed: Deed) -> End | None:
        hosts = [host for host in self.hosts if not self._transport(host).closing]
        return hosts[deed.who % len(hosts)] if hosts else None

    def _host_goes_away(self, deed: Deed) -> None:
        host = self._host(deed)
        if host is None:
            return
        if host.peer is None:
            assert isinstance(host, HttpHost)
            host.raw.close()
            return
        streams = sorted(host.peer.streams)
        host.peer.go_away(
            streams[-1] if streams and deed.size & 1 else 0 if not streams else streams[len(streams) // 2]
        )
        self._sent(host, deed)

    def _host_leaves(self, deed: Deed) -> None:
        host = self._host(deed)
        if host is not None:
            raw = host.raw
            assert isinstance(raw, Host)
            if deed.size & 1:
                raw.reset()
            else:
                raw.close()

    # either side

    def _ends(self, deed: Deed) -> list[End]:
        return [end for end in self.everybody if not self._transport(end).closing]

    def _end_of(self, deed: Deed) -> End | None:
        ends = self._ends(deed)
        return ends[deed.who % len(ends)] if ends else None

    def _give_back(self, deed: Deed) -> None:
        """Windows open."""
        end = self._end_of(deed)
        if end is not None and end.peer is not None:
            peer = end.peer
            chosen = sorted(peer.received)
            if chosen:
                for stream_id in chosen if deed.size & 1 else (chosen[deed.which % len(chosen)],):
                    peer.give_back(stream_id)
            self._sent(end, deed)

    def _settings(self, deed: Deed) -> None:
        end = self._end_of(deed)
        if end is not None and end.peer is not None:
            number = (frame.INITIAL_WINDOW_SIZE, frame.HEADER_TABLE_SIZE, frame.MAX_CONCURRENT_STREAMS)[deed.which % 3]
            if number == frame.MAX_CONCURRENT_STREAMS:
                value = deed.size % 4
            elif number == frame.HEADER_TABLE_SIZE:
                value = (0, 100, 1000, 4096, 65536)[deed.size % 5]
            else:
                value = (0, 10, 1000, 65535, 1 << 20)[deed.size % 5]
            end.peer.settings({number: value})
            self._sent(end, deed)

    def _resize(self, deed: Deed) -> None:
        """The peer's encoder changes the size of its table."""
        end = self._end_of(deed)
        if end is not None and end.peer is not None:
            end.peer.encoder.resize((0, 200, 4096)[deed.size % 3])

    def _ping(self, deed: Deed) -> None:
        end = self._end_of(deed)
        if end is not None and end.peer is not None:
            end.peer.ping()
            self._sent(end, deed)

    def _clog(self, deed: Deed) -> None:
        """The peer's transport takes nothing more."""
        end = self._end_of(deed)
        if end is not None and end.peer is not None:
            transport = self._transport(end)
            if not transport.stopped:
                transport.stopped = True
                transport.protocol.pause_writing()

    def _unclog(self, deed: Deed) -> None:
        for end in self._ends(deed):
            transport = self._transport(end)
            if transport.stopped:
                transport.stopped = False
                transport.protocol.resume_writing()

    def _client_leaves(self, deed: Deed) -> None:
        client = self.clients[deed.who % len(self.clients)]
        if client is None:
            return
        if deed.size % 3 == 2 and client.peer is not None:
            client.peer.go_away(0)
            self._sent(client, deed)
            return
        raw = client.raw
        assert isinstance(raw, Client)
        if deed.size % 3:
            raw.reset()
        else:
            raw.close()

    def _wait(self, deed: Deed) -> None:
        for end in self._ends(deed):
            if end.peer is not None:
                end.peer.flush()
        self.sidecar.advance(deed.size / 1000)

    # the end

    def outcome(self) -> dict[str, Any]:
        """Everything that is to be compared; everybody leaves then, and nothing may be left under way."""
        self._wait(Deed("wait", size=10))
        self._look()
        self._unclog(Deed("unclog"))
        self._look()
        sidecar = self.sidecar
        logs = {path: list(lines) for path, lines in sidecar.stack.log_files.lines.items()}  # type: ignore[attr-defined]
        found = {
            "seen": self.seen,
            "logs": logs,
            "stats": self._stats(),
            "pools": sidecar.pools(),
            "clients": [_client_state(client.protocol) for client in sidecar.clients],
            "dialled": [address.text for address in sidecar.dialer.dialled],
            "random": sidecar.worker.random.random(),
        }
        for client in sidecar.clients:
            client.close()
        for _ in range(3):  # what waited behind another request is sent on when that ends, over a new connection
            for host in sidecar.hosts:
                host.close()
            sidecar.advance(1.0)
        sidecar.end()
        found["logs at last"] = [len(lines) for lines in logs.values()]
        found["left"] = self._stats()
        return found

    def _stats(self) -> dict[str, Any]:
        """The statistics, without the octets in which what was sent was expressed: those are as many as were written."""
        sidecar = self.sidecar
        stats = sidecar.used_stats()
        sent = {name: stats.pop(name) for name in tuple(stats) if name.endswith("_cx_tx_bytes_total")}
        up = sum(value for name, value in sent.items() if "upstream_cx" in name)
        down = sum(value for name, value in sent.items() if "downstream_cx" in name)
        assert up == sum(len(transport.written) + transport.wasted for transport in sidecar.dialer.made)
        assert down in {
            0,
            *(
                times * sum(len(client.transport.written) + client.transport.wasted for client in sidecar.clients)
                for times in (1, 2)
            ),
        }
        return stats


def _client_state(protocol: Any) -> Any:
    if protocol.version == 11:
        return http1_state(protocol)
    if protocol.version != 20:
        return None  # nothing has come that says which protocol it is
    codec = protocol.codec
    return (
        sorted(protocol.exchanges), sorted(protocol.flushing), protocol.requests, protocol.closed, protocol.closing,
        protocol.full, protocol.idle_since, http2_codec_state(codec),
    )  # fmt: skip


def outcome(
    config: Mapping[str, Any],
    remote: str,
    peers: Peers,
    deeds: Sequence[Deed],
    lane: bool,
    filters: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What came of the deeds."""
    run = Run(config, remote, peers, lane, filters)
    for deed in deeds:
        run.do(deed)
    return run.outcome()
