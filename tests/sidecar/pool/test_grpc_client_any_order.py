"""Whatever both sides and the clock do, in whatever order: a call hears what it must, once, and leaves nothing behind."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.codec.grpc import frame
from sidecar.config.retry_policy import RetryBackOff, RetryPolicy
from sidecar.core.client import GrpcOptions
from tests.sidecar.pool.asking import Sink
from tests.sidecar.pool.test_grpc_client import HEAD, OK, PATH, calling, chunk, trailers

MESSAGES = [b"", b"one", b"t" * 3000, b"three"]
ENDS = {"ok": OK, "no": trailers(b"grpc-status: 7"), "none": b"0\r\n\r\n", "never": b""}
OFTEN = ("send", "host sends", "turn", "pause", "resume", "host takes")
ACTIONS = (*OFTEN * 5, "half_close", "half_close", "wait", "wait", "cancel", "host resets")
RETRY = RetryPolicy(frozenset({"reset"}), retry_back_off=RetryBackOff(0.001, 0.001))


class Play:
    """One call; its host follows ``script``, a piece at a time."""

    def __init__(self, sidecar: Any, clients: Any, options: GrpcOptions, script: bytes, sizes: list[int]) -> None:
        self.sidecar = sidecar
        self.script = script
        self.sizes = sizes
        self.sink = Sink()
        self.half_closed = False
        self.cancelled_at: int | None = None
        self.call = clients.grpc("up", options).stream(PATH, self.sink)

    def host(self) -> Any:
        """The connection that carries the call, if there is one."""
        hosts = [host for host in self.sidecar.hosts if not host.closed]
        return hosts[-1] if hosts and hosts[-1].receive() + b"x" and hosts[-1].seen else None

    def do(self, action: str) -> None:
        call, host = self.call, self.host()
        match action:
            case "send" if not self.half_closed:
                call.send(b"x" * 1500)
            case "half_close" if not self.half_closed:
                self.half_closed = True
                call.half_close()
            case "cancel":
                under_way = not call.over  # looking for the host has let the loop turn
                call.cancel()
                if under_way:
                    self.cancelled_at = len(self.sink.events)
            case "pause":
                call.pause()
            case "resume":
                call.resume()
            case "host sends" if host is not None and self.script:
                size = self.sizes.pop(0) if self.sizes else len(self.script)
                piece, self.script = self.script[:size], self.script[size:]
                host.send(piece)
            case "host resets" if host is not None:
                host.reset()
            case "host takes" if host is not None:
                host.transport.room = 0 if host.transport.room is None else host.transport.room
                host.transport.take(1000)
            case "wait":
                self.sidecar.advance(0.3)
            case "turn":
                self.sidecar.loop.settle()


@settings(max_examples=150, deadline=None)
@given(
    actions=st.lists(st.sampled_from(ACTIONS), min_size=5, max_size=40),
    end=st.sampled_from(sorted(ENDS)),
    sizes=st.lists(st.integers(1, 4000), max_size=6),
    retries=st.booleans(),
)
def test_a_call_hears_what_it_must(actions: list[str], end: str, sizes: list[int], retries: bool) -> None:
    script = HEAD + b"".join(chunk(frame(message)) for message in MESSAGES) + ENDS[end]
    options = GrpcOptions(max_duration=2.0, retry=RETRY if retries else None)
    with calling(per_connection_buffer_limit_bytes=2000) as (sidecar, clients):
        play = Play(sidecar, clients, options, script, sizes)
        call, sink = play.call, play.sink
        for action in actions:
            play.do(action)
        if not call.over:
            call.resume()
        sidecar.advance(3.0)  # past the deadline
        call.resume()
        sidecar.loop.settle()
        assert call.over

        heard = [event if isinstance(event, str) else event[0] for event in sink.events]
        if play.cancelled_at is not None:
            assert len(heard) == play.cancelled_at
            assert "close" not in heard
        else:
            assert heard.count("close") == 1
            assert heard[-1] == "close"
        assert heard.count("metadata") <= 1
        pace = [name for name in heard if name in ("full", "writable")]
        assert pace == ["full", "writable"] * (len(pace) // 2) + ["full"] * (len(pace) % 2)
        messages = [event[1] for event in sink.events if event[0] == "message"]
        assert messages == MESSAGES[: len(messages)]
        if ("close", 0) in sink.events:
            assert messages == MESSAGES
            assert end == "ok"
