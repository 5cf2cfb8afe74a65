"""Key sets: which keys can be used, for what, and what confuses nobody."""

import base64
import datetime
import hmac
import json
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from sidecar.filters.jwt.keys import read_keys, read_keys_in_pieces
from sidecar.filters.jwt.status import NO_KEY_MATCHES, OK, PAYLOAD_BAD_JSON, VERIFICATION_FAILS, Status
from sidecar.filters.jwt.token import MAX_TOKEN, Token, read_token
from tests import tokens
from tests.tokens import b64, jwk, jwks

NAMES = '"a":1,'


def verify(keys, text):
    token = read_token(text.encode())
    assert isinstance(token, Token)
    return read_keys(keys.encode()).verify(token)


def signed_by(secret, algorithm="HS256"):
    head = b64(json.dumps({"alg": algorithm}).encode())
    signed = f"{head}.{b64(json.dumps({'iss': 'one'}).encode())}"
    return f"{signed}.{b64(hmac.digest(secret, signed.encode(), 'sha256'))}"


@pytest.mark.parametrize("algorithm", tokens.ALGORITHMS)
def test_every_algorithm(algorithm):
    keys = jwks(jwk("one", algorithm))
    assert verify(keys, tokens.token("one", algorithm)) is OK
    assert verify(keys, tokens.token("two", algorithm)) is VERIFICATION_FAILS


def test_public_key_is_no_secret():
    public = tokens.rsa_key("one").public_key()
    forms = [
        public.public_bytes(encoding, form)
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER)
        for form in (serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1)
    ]
    forms += [form.rstrip(b"\n") for form in forms] + [jwk("one", "RS256")["n"].encode()]
    for secret in forms:
        assert verify(jwks(jwk("one", "RS256")), signed_by(secret)) is VERIFICATION_FAILS


def test_secret_verifies_nothing_but_hmac():
    assert verify(jwks(jwk("one", "HS256")), signed_by(tokens.secret("one"), "RS256")) is VERIFICATION_FAILS


def test_key_ids_and_algorithms_choose():
    keys = jwks(jwk("two", "RS256", kid="a"), jwk("one", "RS256", kid="b", alg="RS256"))
    assert verify(keys, tokens.token("one", header={"kid": "b"})) is OK
    assert verify(keys, tokens.token("one", header={"kid": "a"})) is VERIFICATION_FAILS
    assert verify(keys, tokens.token("one", header={"kid": "c"})) is NO_KEY_MATCHES
    assert verify(keys, tokens.token("one")) is OK
    assert verify(jwks(jwk("one", "RS256", alg="RS384")), tokens.token("one")) is NO_KEY_MATCHES


def test_keys_for_encryption_verify_nothing():
    with pytest.raises(ValueError, match="any valid public key"):
        read_keys(jwks(jwk("one", "RS256", use="enc")).encode())
    assert verify(jwks(jwk("one", "RS256", use="sig")), tokens.token("one")) is OK


@pytest.mark.parametrize("key", [jwk("one", "RS256", alg="HS256"), jwk("one", "HS256", alg="RS256"),
                                 jwk("one", "ES256", alg="ES384"), jwk("one", "ES256", crv="P-384"),
                                 {**jwk("one", "RS256"), "e": "Ag"}, {**jwk("one", "EdDSA"), "crv": "X25519"}])  # fmt: skip
def test_keys_whose_parts_do_not_fit_are_refused(key):
    with pytest.raises(ValueError, match="any valid public key"):
        read_keys(jwks(key).encode())


def certificate() -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    now = datetime.datetime.now(datetime.UTC)
    key = tokens.rsa_key("one")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


def as_keys(der: bytes) -> str:
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return json.dumps({"k": f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"})


def certificate_of_unknown_kind() -> str:
    """A certificate that is right but for the algorithm of its key, which nobody knows."""
    der = certificate().public_bytes(serialization.Encoding.DER)
    known = bytes.fromhex("06092a864886f70d010101")
    assert der.count(known) == 1
    return as_keys(der.replace(known, known[:-1] + b"\x7f"))


def test_certificates_by_key_id():
    keys = as_keys(certificate().public_bytes(serialization.Encoding.DER))
    assert verify(keys, tokens.token("one", header={"kid": "k"})) is OK
    assert verify(keys, tokens.token("one", header={"kid": "l"})) is NO_KEY_MATCHES


def test_certificates_that_are_odd_are_refused():
    for keys in (certificate_of_unknown_kind(), as_keys(b"\x30\x03\x02\x01\x00")):
        with pytest.raises(ValueError, match=r"unknown kind|cannot be read"):
            read_keys(keys.encode())


def test_many_keys_are_read_in_pieces():
    one = jwk("one", "RS256")
    many = jwks(*({**one, "kid": str(number)} for number in range(200))).encode()
    assert len(read_keys(many).keys) == 200
    assert sum(1 for _ in read_keys_in_pieces(many)) >= 6
    with pytest.raises(ValueError, match="more than"):
        read_keys(jwks(*[one] * 600).encode())


def test_token_without_a_key_id_is_tried_with_some_keys_only():
    """Else anybody could have all of them tried."""
    keys = [jwk("two", "RS256", kid=str(number)) for number in range(40)]
    last = jwk("one", "RS256", kid="last")
    assert verify(jwks(*keys, last), tokens.token("one")) is VERIFICATION_FAILS
    assert verify(jwks(*keys, last), tokens.token("one", header={"kid": "last"})) is OK
    assert verify(jwks(*keys[:10], last), tokens.token("one")) is OK


def test_secrets_are_in_no_repr_and_no_error():
    assert b64(tokens.secret("one")) not in repr(read_keys(jwks(jwk("one", "HS256")).encode()))
    with pytest.raises(ValueError, match="any valid") as raised:
        read_keys(jwks(jwk("one", "HS256", alg="RS256")).encode())
    assert b64(tokens.secret("one")) not in str(raised.value)


def test_tokens_are_bounded():
    found = read_token(b"a" * (MAX_TOKEN - 3) + b".b.c.d"[:6])
    assert isinstance(found, Status)
    assert isinstance(read_token(tokens.token("one", x="y" * MAX_TOKEN).encode()), Status)
    assert isinstance(read_token(tokens.token("one", x="y" * (MAX_TOKEN // 2)).encode()), Token)


@pytest.mark.parametrize("unit", ["[],", "{},", "1,", '"",', "[[[]]],", '{"a":1},', NAMES])
def test_reading_a_forged_token_takes_no_time(unit):
    """Before its signature is looked at, it costs what a token of that size should: no more than one with a single claim."""
    many = unit * ((MAX_TOKEN * 3 // 4 - 100) // len(unit))
    text = f'{{"x": {{{many}"b":1}}}}' if unit == NAMES else f'{{"x": [{many}0]}}'
    head = b64(b'{"alg":"RS256"}')
    forged = f"{head}.{b64(text.encode())}.AAAA".encode()
    plain = json.dumps({"x": "y" * (len(text) - len('{"x": ""}'))})
    honest = f"{head}.{b64(plain.encode())}.AAAA".encode()
    assert len(forged) == len(honest) <= MAX_TOKEN
    assert read_token(forged) is PAYLOAD_BAD_JSON
    assert isinstance(read_token(honest), Token)
    times: dict[bytes, list[float]] = {forged: [], honest: []}
    for _ in range(20):
        for token, taken in times.items():
            begin = time.perf_counter()
            read_token(token)
            taken.append(time.perf_counter() - begin)
    assert min(times[forged]) < 1.2 * min(times[honest])


def test_a_token_with_many_claims_is_read():
    groups = [f"group-{number}" for number in range(2000)]
    found = read_token(tokens.token("one", groups=groups).encode())
    assert isinstance(found, Token)
    assert found.payload["groups"] == groups
