"""What hash policies do beside hashing (that the hashes are Envoy's is shown against Envoy): cookies, absence."""

from __future__ import annotations

import pytest
from xxhash import xxh64_intdigest

from sidecar.config.hash_policy import HashCookie, HashHeader, HashPolicy, HashQueryParameter, HashSourceIp
from sidecar.core.address import Address
from sidecar.router.hash_policy import SET_COOKIES, compile_hash_policies
from tests.sidecar.router.compiling import Stream, request

NAMED = (b"SameSite", b"Lax")
FLAG = (b"Secure", b"")


def test_no_policies_are_no_function() -> None:
    assert compile_hash_policies(()) is None


@pytest.mark.parametrize("policy", [HashHeader(b"x", None), HashCookie(b"c", None, b"", ()), HashQueryParameter(b"q")])
def test_what_is_missing_yields_no_hash(policy: HashPolicy) -> None:
    hash_key = compile_hash_policies((policy,))
    assert hash_key is not None
    assert hash_key(Stream(request())) is None


def test_a_unix_socket_has_no_source_ip() -> None:
    hash_key = compile_hash_policies((HashSourceIp(),))
    assert hash_key is not None
    assert hash_key(Stream(request(), Address(None, path="/s"))) is None
    assert hash_key(Stream(request(), Address("10.0.0.1", 5))) == xxh64_intdigest(b"10.0.0.1")


@pytest.mark.parametrize(
    ("policy", "attributes"),
    [
        (HashCookie(b"c", 0.0, b"", ()), b"; HttpOnly"),
        (HashCookie(b"c", 60.5, b"/p", ()), b"; Max-Age=60; Path=/p; HttpOnly"),
        (HashCookie(b"c", 0.0, b"", (NAMED, FLAG)), b"; SameSite=Lax; Secure; HttpOnly"),
    ],
)
def test_a_cookie_with_a_ttl_is_made_where_it_is_missing(policy: HashCookie, attributes: bytes) -> None:
    hash_key = compile_hash_policies((policy,))
    assert hash_key is not None
    stream = Stream(request())
    key = hash_key(stream)
    value = b"%x" % xxh64_intdigest(b"127.0.0.2:4000127.0.0.1:80")
    assert key == xxh64_intdigest(value)
    assert stream.data[SET_COOKIES] == [b'c="' + value + b'"' + attributes]
    returning = Stream(request(headers=[("cookie", f'c="{value.decode()}"')]))
    assert hash_key(returning) == key
    assert returning.data == {}


def test_no_cookie_is_made_without_a_ttl_or_where_that_is_not_wanted() -> None:
    for policy, make in ((HashCookie(b"c", None, b"", ()), True), (HashCookie(b"c", 0.0, b"", ()), False)):
        hash_key = compile_hash_policies((policy,), make)
        assert hash_key is not None
        stream = Stream(request())
        assert hash_key(stream) is None
        assert stream.data == {}
