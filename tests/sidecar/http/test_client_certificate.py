"""x-forwarded-client-cert in all modes, as real Envoy writes it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from sidecar.config.tls_forwarding import SetCurrentClientCertDetails, parse_set_current_client_cert_details
from sidecar.core.head import RequestHead
from sidecar.http.client_certificate import compile_forwarded_client_certificate
from tests.sidecar.config.building import build

HEADER = b"x-forwarded-client-cert"
DETAILS = (
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails"
)
ALL = SetCurrentClientCertDetails(subject=True, cert=True, chain=True, dns=True, uri=True)


@dataclass
class Shown:
    """A certificate."""

    uri_sans: tuple[bytes, ...] = (b"spiffe://td/a", b"spiffe://td/b")
    dns_sans: tuple[bytes, ...] = (b"a.example", b"b.example")
    subject: bytes = rb"CN=client,O=A \"q\""
    sha256: str = "ab" * 32
    url_encoded_pem: str = "PEM%0A"


@dataclass
class Tls:
    """A connection with certificates at both ends."""

    peer: Shown | None = field(default_factory=Shown)
    local: Shown | None = field(default_factory=lambda: Shown(uri_sans=(b"spiffe://td/proxy",)))
    url_encoded_chain: str = "PEM%0AMORE%0A"
    forwarded: bytes | None = None


HASH = b"Hash=" + b"ab" * 32
SHORT = b"By=spiffe://td/proxy;" + HASH
LONG = SHORT + (
    rb';Cert="PEM%0A";Chain="PEM%0AMORE%0A";Subject="CN=client,O=A \"q\""'
    rb";URI=spiffe://td/a;URI=spiffe://td/b;DNS=a.example;DNS=b.example"
)


def forwarded(
    mode: str,
    tls: Tls | None,
    *sent: bytes,
    details: SetCurrentClientCertDetails = SetCurrentClientCertDetails(),  # noqa: B008
) -> list[bytes]:
    fields = [(HEADER, value) for value in sent]
    request = RequestHead(b"GET", b"/", b"a", [(b"before", b"1"), *fields, (b"after", b"2")])
    compile_forwarded_client_certificate(mode, details)(request, tls)
    assert request.index.get(HEADER) == (b",".join(request.get_all(HEADER)) or None)
    return request.get_all(HEADER)


@pytest.mark.parametrize("sent", [(), (b"By=old",), (b"By=old", b"By=older")])
@pytest.mark.parametrize("tls", [None, Tls(peer=None), Tls()])
def test_sanitize_removes_it(tls: Tls | None, sent: tuple[bytes, ...]) -> None:
    assert forwarded("SANITIZE", tls, *sent) == []


@pytest.mark.parametrize("tls", [None, Tls(peer=None), Tls()])
def test_always_forward_only_keeps_it_whatever_the_connection(tls: Tls | None) -> None:
    assert forwarded("ALWAYS_FORWARD_ONLY", tls, b"By=old") == [b"By=old"]
    assert forwarded("ALWAYS_FORWARD_ONLY", tls) == []


def test_forward_only_keeps_it_from_clients_with_a_certificate() -> None:
    assert forwarded("FORWARD_ONLY", Tls(), b"By=old") == [b"By=old"]
    assert forwarded("FORWARD_ONLY", Tls(peer=None), b"By=old") == []
    assert forwarded("FORWARD_ONLY", None, b"By=old") == []


def test_append_forward_adds_an_element() -> None:
    assert forwarded("APPEND_FORWARD", Tls()) == [SHORT]
    assert forwarded("APPEND_FORWARD", Tls(), b"By=old") == [b"By=old," + SHORT]
    assert forwarded("APPEND_FORWARD", Tls(), b"By=a", b"By=b") == [b"By=a,By=b," + SHORT]
    assert forwarded("APPEND_FORWARD", Tls(), b"By=old", details=ALL) == [b"By=old," + LONG]
    assert forwarded("APPEND_FORWARD", Tls(peer=None), b"By=old") == []
    assert forwarded("APPEND_FORWARD", None, b"By=old") == []


def test_sanitize_set_replaces_it() -> None:
    assert forwarded("SANITIZE_SET", Tls()) == [SHORT]
    assert forwarded("SANITIZE_SET", Tls(), b"By=a", b"By=b", details=ALL) == [LONG]
    assert forwarded("SANITIZE_SET", Tls(peer=None), b"By=old") == []
    assert forwarded("SANITIZE_SET", None, b"By=old") == []


def test_what_a_certificate_lacks() -> None:
    bare = Tls(Shown((), (), b""), Shown(()))
    assert forwarded("SANITIZE_SET", bare, details=ALL) == [
        HASH + b';Cert="PEM%0A";Chain="PEM%0AMORE%0A";Subject="";URI='
    ]
    assert forwarded("SANITIZE_SET", Tls(local=None)) == [HASH]
    assert forwarded("SANITIZE_SET", Tls(local=Shown((b"one:", b"two:")))) == [b"By=one:;By=two:;" + HASH]


@pytest.mark.parametrize(
    ("details", "end"),
    [
        (SetCurrentClientCertDetails(subject=True), rb';Subject="CN=client,O=A \"q\""'),
        (SetCurrentClientCertDetails(cert=True), b';Cert="PEM%0A"'),
        (SetCurrentClientCertDetails(chain=True), b';Chain="PEM%0AMORE%0A"'),
        (SetCurrentClientCertDetails(uri=True), b";URI=spiffe://td/a;URI=spiffe://td/b"),
        (SetCurrentClientCertDetails(dns=True), b";DNS=a.example;DNS=b.example"),
    ],
)
def test_each_detail(details: SetCurrentClientCertDetails, end: bytes) -> None:
    assert forwarded("SANITIZE_SET", Tls(), details=details) == [SHORT + end]


def test_it_is_written_once_for_a_connection() -> None:
    tls = Tls()
    forward = compile_forwarded_client_certificate("SANITIZE_SET")
    first, second = (RequestHead(b"GET", b"/", b"a", []) for _ in range(2))
    forward(first, tls)
    assert tls.forwarded == SHORT
    forward(second, tls)
    assert second.get(HEADER) is first.get(HEADER)


def test_the_details_are_read_from_the_configuration() -> None:
    document = {"subject": True, "cert": True, "chain": True, "dns": True, "uri": True}
    assert build(DETAILS, document, parse_set_current_client_cert_details) == ALL
    assert build(DETAILS, {}, parse_set_current_client_cert_details) == SetCurrentClientCertDetails()
    assert parse_set_current_client_cert_details(None) == SetCurrentClientCertDetails()


def test_names_of_a_certificate_cannot_be_taken_for_more_than_names() -> None:
    names = (b"spiffe://a/b\r\nx-evil: 1", b"spiffe://a,By=spiffe://root", b"spiffe://a/ns?x=y")
    odd = Shown(uri_sans=names, dns_sans=(b"a;By=spiffe://root", b'q"\\'))
    (told,) = forwarded("SANITIZE_SET", Tls(peer=odd), details=SetCurrentClientCertDetails(dns=True, uri=True))
    assert told.removeprefix(SHORT) == (
        b';URI="spiffe://a/b%0D%0Ax-evil: 1";URI="spiffe://a,By=spiffe://root";URI=spiffe://a/ns?x=y'
        b';DNS="a;By=spiffe://root";DNS="q\\"\\\\"'
    )
