"""What certificates say, in the words of Envoy: the expected texts were read off a real one's access log."""

from __future__ import annotations

import ssl
from hashlib import sha1
from urllib.parse import unquote

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from sidecar.transport.failures import from_ssl
from sidecar.transport.identity import CertificateDetails, details_of, pem
from sidecar.transport.verification import matches_dns_name
from tests.sidecar.transport.serving import (
    AUTHORITY,
    CLIENT,
    SERVER,
    dial,
    downstream,
    on_loop,
    originating,
    serving,
    trusted,
    upstream,
)

NAME = x509.Name(
    [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, 'A "q", Inc+=<é>'),
        x509.NameAttribute(NameOID.COMMON_NAME, "cli ent"),
        x509.NameAttribute(NameOID.EMAIL_ADDRESS, "x@y.z"),
        x509.NameAttribute(NameOID.SERIAL_NUMBER, "77"),
        x509.NameAttribute(NameOID.DN_QUALIFIER, "dq"),
        x509.NameAttribute(NameOID.STREET_ADDRESS, "st"),
        x509.NameAttribute(NameOID.USER_ID, "uid"),
        x509.NameAttribute(NameOID.GIVEN_NAME, "gn"),
        x509.NameAttribute(NameOID.SURNAME, "sn"),
        x509.NameAttribute(NameOID.TITLE, "ti"),
        x509.NameAttribute(NameOID.POSTAL_CODE, "pc"),
        x509.NameAttribute(x509.ObjectIdentifier("1.2.3.4.5"), "odd"),
    ]
)
FULL = AUTHORITY.issue(
    NAME,
    ["spiffe://td/a", "https://x/y?a=b;c,d", "a.example", "b.example", "1.2.3.4", "::1", "m@x.y"],
    serial=0x0ABCD,
)


def test_a_certificate_with_everything() -> None:
    details = details_of(FULL.der)
    assert details.subject == (
        b"1.2.3.4.5=#0C036F6464,postalCode=pc,title=ti,SN=sn,GN=gn,UID=uid,street=st,dnQualifier=dq,serialNumber=77,"
        rb"emailAddress=x@y.z,CN=cli ent,O=A \"q\"\, Inc\+=\<\C3\A9\>,C=DE"
    )
    assert details.issuer == b"CN=Test Root"
    assert details.serial == "abcd"
    assert details.uri_sans == (b"spiffe://td/a", b"https://x/y?a=b;c,d")
    assert details.dns_sans == (b"a.example", b"b.example")
    assert details.ip_sans == (b"1.2.3.4", b"::1")
    assert details.email_sans == (b"m@x.y",)
    assert details.sha256 == FULL.sha256
    assert details.sha1 == sha1(FULL.der).hexdigest()
    assert details.valid_from == FULL.certificate.not_valid_before_utc
    assert details.valid_until == FULL.certificate.not_valid_after_utc
    assert details.is_ecdsa


def test_a_certificate_with_nothing() -> None:
    details = CertificateDetails(AUTHORITY.issue().der)
    assert (details.subject, details.sans, details.uri_sans, details.server_names) == (b"", (), (), ())


@pytest.mark.parametrize(
    ("number", "text"), [(1, "01"), (0x10, "10"), (0x123, "0123"), ((1 << 158) + 5, "40" + "0" * 37 + "5")]
)
def test_serial_numbers(number: int, text: str) -> None:
    assert CertificateDetails(AUTHORITY.issue("s", serial=number).der).serial == text


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        (" both ends ", rb"\ both ends\ "),
        ("#first", rb"\#first"),
        ("in#side", b"in#side"),
        ("back\\slash;", rb"back\\slash\;"),
        ("tab\tand\x7f", rb"tab\09and\7F"),
        (" ", rb"\ "),
    ],
)
def test_escapes_in_names(value: str, escaped: bytes) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value)])
    assert CertificateDetails(AUTHORITY.issue(name).der).subject == b"CN=" + escaped


def test_several_attributes_in_one_part() -> None:
    name = x509.Name(
        [
            x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE")]),
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(NameOID.COMMON_NAME, "a"), x509.NameAttribute(NameOID.USER_ID, "b")]
            ),
        ]
    )
    assert CertificateDetails(AUTHORITY.issue(name).der).subject in (b"CN=a+UID=b,C=DE", b"UID=b+CN=a,C=DE")


def test_names_that_it_serves_are_the_common_name_only_without_dns_names() -> None:
    assert details_of(SERVER.der).server_names == ("server.example", "*.wild.example")
    assert CertificateDetails(AUTHORITY.issue("Only.Example").der).server_names == ("only.example",)


def test_pem_is_that_of_openssl_and_percent_encoded_as_envoy_does() -> None:
    assert pem(CLIENT.der).encode() == CLIENT.pem
    encoded = details_of(CLIENT.der).url_encoded_pem
    assert unquote(encoded).encode() == CLIENT.pem
    assert not set(encoded) & set("\n +/=")
    assert encoded.startswith("-----BEGIN%20CERTIFICATE-----%0A")


def test_the_same_certificate_is_read_once() -> None:
    assert details_of(bytes(bytearray(CLIENT.der))) is details_of(CLIENT.der)


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        (b"a.example", b"a.example", True),
        (b"A.Example", b"a.eXAMPLE", True),
        (b"*.example", b"a.example", True),
        (b"*.example", b"a.b.example", False),
        (b"*.example", b".example", False),
        (b"*.example", b"example", False),
        (b"a*.example", b"ab.example", False),
        (b"*", b"example", False),
    ],
)
def test_wildcards_in_certificates(pattern: bytes, name: bytes, fits: bool) -> None:
    assert matches_dns_name(pattern, name) is fits


@on_loop
async def test_both_ends_of_a_connection() -> None:
    config = downstream(validation=trusted(), require_client_certificate=True)
    async with serving(config) as server:
        connection, _ = await dial(
            originating(upstream(CLIENT, sni="server.example"), server.surroundings), server.port
        )
        await server.first()
        here, there = connection.tls, server.connections[0].info.tls
        assert here is not None and here.peer is not None and here.local is not None
        assert (here.peer.subject, here.local.subject, here.server_name) == (
            b"CN=server",
            b"CN=client",
            "server.example",
        )
        assert (there.peer.subject, there.local.subject) == (b"CN=client", b"CN=server")
        assert there.uri_sans == (b"spiffe://td/client",) and there.dns_sans == (b"client.example",)
        assert unquote(there.url_encoded_chain).encode().startswith(CLIENT.pem)
        assert there.version == here.version == "TLSv1.2"
        assert len(here.session_id) == 64


def test_an_error_that_only_openssl_has_keeps_its_name() -> None:
    error = ssl.SSLError(1, "words")
    error.reason = "SOMETHING_OF_ITS_OWN"
    failure = from_ssl(error)
    assert failure.words == "TLS_error:|268435456:SSL routines:OPENSSL_internal:SOMETHING_OF_ITS_OWN:TLS_error_end"
    assert failure.counter == "connection_error"
