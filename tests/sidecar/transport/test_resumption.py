"""Sessions: resumed on both sides, in both versions, and never across what another context would ask."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.core.tls_options import TransportSocketOptions
from sidecar.transport.failures import TlsFailure
from tests.sidecar.transport.serving import (
    AUTHORITY,
    CLIENT,
    OPENSSL,
    Inner,
    client_context,
    command,
    dial,
    downstream,
    in_thread,
    needs_openssl,
    on_loop,
    originating,
    run,
    serving,
    trusted,
    upstream,
)

VERSIONS = pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
OLD = {"tls_params": {"tls_maximum_protocol_version": "TLSv1_2"}}


def twice(port: int, context: ssl.SSLContext, between: Callable[[], None] = lambda: None) -> list[bool]:
    """Whether the first and the second of two connections with the same session resumed it."""
    session: ssl.SSLSession | None = None
    resumed = []
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="server.example", session=session) as wrapped,
        ):
            wrapped.sendall(b"ping")
            assert wrapped.recv(100) == b"ping"
            session = wrapped.session
            resumed.append(bool(wrapped.session_reused))
        between()
    return resumed


@VERSIONS
@pytest.mark.parametrize("tickets", [True, False])
@on_loop
async def test_clients_resume_their_session(version: str, tickets: bool) -> None:
    context = client_context()
    context.maximum_version = getattr(ssl.TLSVersion, version)
    async with serving(downstream(disable_stateless_session_resumption=not tickets)) as server:
        resumes = tickets or version == "TLSv1_2"  # there, sessions by number are left
        assert await in_thread(twice, server.port, context) == [False, resumes]
        assert server.stats.session_reused == int(resumes)
        assert server.stats.handshake == 2
        assert server.connections[1].info.tls.resumed is resumes
        if version == "TLSv1_2":
            assert len(server.connections[1].info.tls.session_id) == 64


@VERSIONS
def test_a_resumed_session_shows_the_same_certificate_and_is_asked_the_same(version: str, tmp_path: Path) -> None:
    async def test() -> None:
        context = client_context(CLIENT, tmp_path)
        context.maximum_version = getattr(ssl.TLSVersion, version)
        validation = trusted(match_typed_subject_alt_names=[{"san_type": "URI", "matcher": {"prefix": "spiffe://td"}}])
        async with serving(downstream(validation=validation, require_client_certificate=True)) as server:
            assert await in_thread(twice, server.port, context) == [False, True]
            tls = server.connections[1].info.tls
            assert tls.resumed and tls.uri_sans == (b"spiffe://td/client",)
            assert tls.chain[0] == CLIENT.der

    run(test())


@VERSIONS
@pytest.mark.parametrize("keys", [0, 1])
@on_loop
async def test_we_resume_sessions_with_endpoints(version: str, keys: int) -> None:
    common = {"tls_params": {"tls_maximum_protocol_version": version}}
    async with serving(downstream()) as server:
        tls = originating(upstream(common=common, max_session_keys=keys), server.surroundings)
        for _ in range(3):
            connection, inner = await dial(tls, server.port)
            connection.write(b"x")
            await inner.until(lambda inner=inner: inner.received)  # type: ignore[misc]
            connection.close()
        assert tls.stats.handshake == 3
        assert tls.stats.session_reused == (2 if keys else 0)


@on_loop
async def test_sessions_are_kept_by_server_name() -> None:
    async with serving(downstream()) as server:
        tls = originating(upstream(max_session_keys=10), server.surroundings)

        async def resumed(name: str) -> bool:
            connection, inner = await dial(tls, server.port, options=TransportSocketOptions(name))
            connection.write(b"x")
            await inner.until(lambda: inner.received)
            assert connection.tls is not None
            return connection.tls.resumed

        assert [await resumed(name) for name in ("a.example", "b.example", "a.example", "b.example")] == [
            False, False, True, True,
        ]  # fmt: skip


@needs_openssl
@VERSIONS
def test_openssl_resumes(version: str, tmp_path: Path) -> None:
    async def test() -> None:
        def answer_and_end(inner: Inner, data: bytes) -> None:
            inner.transport.write(data)
            inner.transport.write_eof()

        async with serving(downstream(), lambda: Inner(answer_and_end)) as server:
            assert OPENSSL is not None
            session = str(tmp_path / "session")
            arguments = [OPENSSL, "s_client", "-connect", f"127.0.0.1:{server.port}", f"-tls1_{version[-1]}"]
            for use, outcome in (("-sess_out", "New, "), ("-sess_in", "Reused, ")):
                _, output = await command(*arguments, "-ign_eof", use, session, given=b"x\n")
                assert outcome in output

    run(test())


@VERSIONS
@pytest.mark.parametrize(("days", "why"), [(2, "certificate has expired"), (-2, "certificate is not yet valid")])
def test_a_session_does_not_outlive_its_certificate(
    version: str, days: int, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the wall clock, for the monotonic one knows nothing of a machine that sleeps. OpenSSL does not look at the dates again
    when a session is resumed.
    """
    common = {"tls_params": {"tls_maximum_protocol_version": version}}
    wall = time.time

    def set_clock(ahead: float) -> None:
        monkeypatch.setattr(time, "time", lambda: wall() + ahead)

    async def test() -> None:
        context = client_context(CLIENT, tmp_path)
        context.maximum_version = getattr(ssl.TLSVersion, version)
        async with serving(downstream(validation=trusted(), require_client_certificate=True)) as server:
            assert await in_thread(twice, server.port, context) == [False, True]
            tls = originating(upstream(CLIENT, common=common, max_session_keys=5), server.surroundings)
            for _ in range(2):
                connection, inner = await dial(tls, server.port)
                connection.write(b"x")
                await inner.until(lambda inner=inner: inner.received)  # type: ignore[misc]
            assert tls.stats.session_reused == 1
            set_clock(days * 86400.0)
            with pytest.raises(TlsFailure, match=why):
                await dial(tls, server.port)
            assert tls.stats.fail_verify_error == 1
            set_clock(0.0)
            refused = server.stats.fail_verify_error
            with pytest.raises((OSError, AssertionError)):
                await in_thread(twice, server.port, context, lambda: set_clock(days * 86400.0))
            assert server.stats.fail_verify_error == refused + 1

    run(test())


def test_another_authority_is_not_reached_by_an_old_session() -> None:
    """Two filter chains, one of them for known clients only: a session of the open one opens nothing in the other."""
    context = client_context()

    def talk(port: int, session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None]:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="server.example", session=session) as wrapped,
        ):
            wrapped.sendall(b"x")
            return wrapped.recv(10), wrapped.session

    async def test() -> None:
        async with serving(downstream()) as open_server:
            answer, session = await in_thread(talk, open_server.port, None)
            assert answer == b"x"
            closed = downstream(validation=trusted(AUTHORITY), require_client_certificate=True)
            async with serving(closed) as server:
                with pytest.raises(OSError):
                    await in_thread(talk, server.port, session)
                assert server.inners == []
                assert server.stats.fail_verify_no_cert == 1

    run(test())


@on_loop
async def test_tickets_leave_with_the_first_data() -> None:
    """One packet less for each handshake; who is never told anything has nothing to resume."""
    async with serving(downstream()) as server:
        tls = originating(
            upstream(common={"tls_params": {"tls_maximum_protocol_version": "TLSv1_3"}}), server.surroundings
        )
        connection, inner = await dial(tls, server.port)
        await server.first()
        [accepted] = server.connections
        assert accepted.tickets == accepted.outgoing.pending > 0
        connection.write(b"ping")
        await inner.until(lambda: inner.received == b"ping")
        assert accepted.tickets == accepted.outgoing.pending == 0
        connection, _ = await dial(tls, server.port)
        assert connection.tls is not None and connection.tls.resumed
