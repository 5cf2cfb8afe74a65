"""SPIFFE validation where it is stricter than Envoy's, towards endpoints, for resumed sessions, and while bundles change."""

from __future__ import annotations

import os
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.transport.failures import TlsContextError, TlsFailure
from sidecar.transport.spiffe import trust_domain_of
from tests.sidecar.transport.certificates import Certificate
from tests.sidecar.transport.serving import (
    AUTHORITY,
    Document,
    dial,
    downstream,
    in_thread,
    on_loop,
    originating,
    serving,
    surroundings,
    upstream,
)
from tests.sidecar.transport.test_against_envoy import Client, visit
from tests.sidecar.transport.test_spiffe_beside_envoy import (
    BETWEEN,
    EAST,
    ID,
    OURS_STRICTER,
    WEST,
    bundle_map,
    mapped,
    spiffe,
    svid,
)

GOOD = svid(EAST, "good", ID)
BELOW = svid(BETWEEN, "below", ID)
IMPOSTOR = svid(WEST, "impostor", ID)


@pytest.mark.parametrize(
    ("identity", "domain"),
    [
        ("spiffe://td/a", "td"),
        ("spiffe://k8s-west.example.com/ns/staging/sa/default", "k8s-west.example.com"),
        ("spiffe://td/a.b-c_D9", "td"),
        ("spiffe://td", None),
        ("spiffe://td/", None),
        ("spiffe:///a", None),
        ("spiffe://TD/a", None),
        ("SPIFFE://td/a", None),
        ("spiffe://td:80/a", None),
        ("spiffe://user@td/a", None),
        ("spiffe://td/a?b", None),
        ("spiffe://td/a#b", None),
        ("spiffe://td/a/", None),
        ("spiffe://td//a", None),
        ("spiffe://td/./a", None),
        ("spiffe://td/../a", None),
        ("spiffe://td/%61", None),
        ("spiffe://td/a\n", None),
        ("spiffe://td/" + "a" * 2036, "td"),
        ("spiffe://td/" + "a" * 2037, None),
        ("https://td/a", None),
    ],
)
def test_what_a_spiffe_id_is(identity: str, domain: str | None) -> None:
    assert trust_domain_of(identity.encode()) == domain


@on_loop
async def test_who_has_more_than_one_id_or_none_by_the_specification_is_refused(tmp_path: Path) -> None:
    async with serving(downstream(validation=spiffe())) as server:
        for certificate in OURS_STRICTER.values():
            assert not (await in_thread(visit, server.port, Client(certificate), tmp_path)).accepted
        assert server.stats.fail_verify_error == len(OURS_STRICTER) and server.stats.handshake == 0
        assert "2 URI SANs, and an X509-SVID has one" in server.reasons[0]


@pytest.mark.parametrize("highest", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize(
    ("certificate", "validation", "why"),
    [
        (GOOD, spiffe(), ""),
        (BELOW, spiffe(), ""),
        (IMPOSTOR, spiffe(), "unable to get local issuer certificate"),
        (IMPOSTOR, spiffe({"east": EAST.pem}), "unable to get local issuer certificate"),
        (svid(EAST, "other", "spiffe://other/a"), spiffe(), "no trust bundle store"),
        (svid(EAST, "old", ID, days=(-3, -1)), spiffe(), "certificate has expired"),
        (svid(EAST, "old", ID, days=(-3, -1)), spiffe(allow_expired_certificate=True), ""),
        (AUTHORITY.issue("no-mesh", ["server.example"]), spiffe(), "unable to get local issuer certificate"),
    ],
)
def test_endpoints(highest: str, certificate: Certificate, validation: Document, why: str) -> None:
    @on_loop
    async def test() -> None:
        around = surroundings()
        async with serving(downstream(certificate), around=around) as server:
            params = {"tls_params": {"tls_maximum_protocol_version": highest}}
            tls = originating(upstream(validation=validation, common=params), around)
            if not why:
                connection, _ = await dial(tls, server.port)
                connection.abort()
                return
            with pytest.raises(TlsFailure) as raised:
                await dial(tls, server.port)
            assert why in raised.value.words and tls.stats.set() == {"fail_verify_error": 1}

    test()


def _resuming(port: int, directory: Path, certificate: Certificate, version: ssl.TLSVersion) -> list[bool]:
    """Whether each of two connections with one context resumed a session; an exception where it is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=AUTHORITY.pem.decode())
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(*certificate.write(directory, certificate.sha256[:8]))
    session, seen = None, []
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, session=session) as wrapped,
        ):
            wrapped.sendall(b"ping")
            if wrapped.recv(4) != b"ping":
                raise ConnectionError("refused behind the handshake")
            session = wrapped.session
            seen.append(bool(wrapped.session_reused))
    return seen


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("tickets", [True, False])
def test_a_resumed_session_is_asked_the_same(version: ssl.TLSVersion, tickets: bool, tmp_path: Path) -> None:
    """Its chain is forgotten, and the intermediate with it: that it was verified is not."""

    @on_loop
    async def test() -> None:
        config = downstream(validation=spiffe(), disable_stateless_session_resumption=not tickets)
        async with serving(config) as server:
            seen = await in_thread(_resuming, server.port, tmp_path, BELOW, version)
            assert seen == [False, tickets or version is ssl.TLSVersion.TLSv1_2]
            assert server.stats.fail_verify_error == 0
            with pytest.raises(OSError):
                await in_thread(_resuming, server.port, tmp_path, IMPOSTOR, version)

    test()


@on_loop
async def test_bundles_in_a_file_change_and_sessions_of_before_end(tmp_path: Path) -> None:
    path = tmp_path / "bundles.json"

    def write(text: str) -> None:
        (tmp_path / "new").write_text(text)
        os.replace(tmp_path / "new", path)

    write(bundle_map(east=EAST, west=WEST))
    async with serving(downstream(validation=mapped({"filename": str(path)}))) as server:
        rotation = server.tls.rotation
        assert await in_thread(_resuming, server.port, tmp_path, GOOD, ssl.TLSVersion.TLSv1_3) == [False, True]
        write("{}")
        await server.until(lambda: rotation.rejected == 1)
        assert (await in_thread(visit, server.port, Client(GOOD), tmp_path)).accepted
        write(bundle_map(east=WEST, west=EAST))
        await server.until(lambda: rotation.updated == 1)
        assert not (await in_thread(visit, server.port, Client(GOOD), tmp_path)).accepted
        assert (await in_thread(visit, server.port, Client(IMPOSTOR), tmp_path)).accepted


@on_loop
async def test_a_certificate_that_expires_while_the_sidecar_runs_is_refused_from_then_on(tmp_path: Path) -> None:
    """A verdict that is remembered does not outlive what it is about."""
    brief = svid(EAST, "brief", ID, days=(-1, 3 / 86400))
    async with serving(downstream(validation=spiffe())) as server:
        assert (await in_thread(visit, server.port, Client(brief), tmp_path)).accepted
        while (await in_thread(visit, server.port, Client(brief), tmp_path)).accepted:
            assert server.stats.fail_verify_error == 0
        assert brief.certificate.not_valid_after_utc <= datetime.now(UTC)
        assert server.stats.fail_verify_error == 1 and "certificate has expired" in server.reasons[-1]


@pytest.mark.parametrize(
    ("validation", "words"),
    [
        (spiffe({"td": b"nothing"}), "the trust_bundle of td holds no certificate in PEM"),
        (spiffe({"td": EAST.pem.replace(b"M", b"N")}), "the trust_bundle of td cannot be understood"),
        (mapped({"inline_string": "[]"}), "trust_bundles is not JSON with an object"),
        (mapped({"inline_string": '{"trust_domains": {"td": {}}}'}), 'td in trust_bundles has no list called "keys"'),
        (mapped({"inline_string": '{"trust_domains": {"td": {"keys": []}}}'}), "nobody could be verified"),
        (
            mapped({"inline_string": '{"trust_domains": {"td": {"keys": [{"use": "x509-svid"}]}}}'}),
            'has a key for x509-svid without "x5c"',
        ),
        (
            mapped({"inline_string": '{"trust_domains": {"td": {"keys": [{"use": "x509-svid", "x5c": ["??"]}]}}}'}),
            "has a certificate that cannot be understood",
        ),
        (mapped({"filename": "/nowhere"}), "trust_bundles (/nowhere) cannot be read"),
    ],
)
def test_bundles_that_are_refused(validation: Document, words: str) -> None:
    @on_loop
    async def test() -> None:
        with pytest.raises(TlsContextError, match=words.replace("(", r"\(").replace(")", r"\)")):
            async with serving(downstream(validation=validation)):
                pass

    test()
