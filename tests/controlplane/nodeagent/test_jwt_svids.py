"""JWT-SVIDs: fetched and judged through the agent, with real keys of the control plane; and attacks on the judging."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from controlplane.nodeagent.jwt_svids import BadToken, validate
from controlplane.nodeagent.trust_bundle import TrustBundle
from tests.controlplane.nodeagent.node import Node, RunningAgent, node
from tests.running import until

PAGE = "spiffe://cluster.local/ns/shop/sa/page"
NOW = 1_700_000_000.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, RunningAgent]]:
    with node(tmp_path_factory.mktemp("node")) as one:
        one.join("page")
        one.join("reviews")
        with one.agent() as agent:
            yield one, agent


def test_one_workload_knows_another_by_its_token(running: tuple[Node, RunningAgent]) -> None:
    spiffe = pytest.importorskip("spiffe", reason="py-spiffe is not installed")
    one, agent = running
    agent.wait_for("shop/reviews: the trust bundle is")  # that has the keys
    with (
        spiffe.WorkloadApiClient(f"unix://{one.socket('page')}") as page,
        spiffe.WorkloadApiClient(f"unix://{one.socket('reviews')}") as reviews,
    ):
        token = page.fetch_jwt_svid({"reviews"}, timeout=10)
        assert str(token.spiffe_id) == PAGE and token.audience == {"reviews"}
        found = reviews.validate_jwt_svid(token.token, "reviews", timeout=10)
        assert str(found.spiffe_id) == PAGE
        again = page.fetch_jwt_svid({"reviews"}, timeout=10)
        assert again.token == token.token, "kept while half of its life is left"
        assert page.fetch_jwt_svid({"ratings"}, timeout=10).token != token.token
        bundles = reviews.fetch_jwt_bundles(timeout=10)
        bundle = bundles.get_bundle_for_trust_domain(token.spiffe_id.trust_domain)
        parsed = spiffe.JwtSvid.parse_and_validate(token.token, bundle, {"reviews"})
        assert parsed.spiffe_id == token.spiffe_id
        with pytest.raises(spiffe.workloadapi.errors.ValidateJwtSvidError, match="the token is not for 'ratings'"):
            reviews.validate_jwt_svid(token.token, "ratings", timeout=10)
        head, payload, signature = token.token.split(".")
        with pytest.raises(spiffe.workloadapi.errors.ValidateJwtSvidError, match="signature"):
            reviews.validate_jwt_svid(f"{head}.{payload}.{signature[:-8]}AAAAAAAA", "reviews", timeout=10)
    assert agent.metric("mizzen_agent_jwt_svids_total", workload="shop/page") == 3


def test_a_token_that_is_kept_serves_while_the_control_plane_is_away(running: tuple[Node, RunningAgent]) -> None:
    spiffe = pytest.importorskip("spiffe", reason="py-spiffe is not installed")
    one, _ = running
    with spiffe.WorkloadApiClient(f"unix://{one.socket('page')}") as page:
        token = page.fetch_jwt_svid({"kept"}, timeout=10).token
        one.mesh.kill()
        try:
            assert page.fetch_jwt_svid({"kept"}, timeout=10).token == token
            with pytest.raises(spiffe.workloadapi.errors.FetchJwtSvidError, match="cannot reach"):
                page.fetch_jwt_svid({"never before"}, timeout=10)
        finally:
            one.mesh.start()
        until(lambda: _fetched(page), "it is there again", timeout=20)


def _fetched(client: Any) -> bool:
    spiffe = pytest.importorskip("spiffe")
    try:
        client.fetch_jwt_svid({"never before"}, timeout=10)
    except spiffe.workloadapi.errors.FetchJwtSvidError:
        return False
    return True


EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)


def jwk(key: Any, kid: str, **changes: Any) -> dict[str, Any]:
    algorithm = (
        jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else jwt.algorithms.RSAAlgorithm
    )
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "jwt-svid", **changes}


def bundle(*keys: dict[str, Any]) -> TrustBundle:
    return TrustBundle("cluster.local", "1", b"", b"", b"", (), json.dumps({"keys": keys}))


BUNDLE = bundle(jwk(EC_KEY, "one"), jwk(RSA_KEY, "two"))


def token(key: Any = EC_KEY, algorithm: str = "ES256", headers: Any = None, **claims: Any) -> str:
    body = {"sub": PAGE, "aud": ["reviews"], "exp": NOW + 60, "iat": NOW, **claims}
    body = {name: value for name, value in body.items() if value is not None}
    return jwt.encode(body, key, algorithm, headers={"kid": "one"} if headers is None else headers)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "good",
    [
        token(),
        token(aud="reviews"),
        token(headers={}),
        token(RSA_KEY, "RS256", {"kid": "two"}),
        token(RSA_KEY, "PS512", {"kid": "two"}),
        token(headers={"kid": "one", "typ": "JOSE"}),
        token(exp=NOW - 3),  # clocks differ
    ],
)
def test_good_tokens(good: str) -> None:
    assert validate(good, "reviews", BUNDLE, NOW)["sub"] == PAGE


_HEAD, _PAYLOAD, _SIGNATURE = token().split(".")


def confused() -> str:
    """Signed with the public key as if it were a secret."""
    public = EC_KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = f"{part({'alg': 'HS256', 'kid': 'one'})}.{_PAYLOAD}"
    signature = hmac.digest(public, text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("", "compact form"),
        ("a.b", "compact form"),
        ("a.b.c.d.e", "compact form"),
        ("a.b.c", "not a JWT"),
        ("x" * 20_000 + ".b.c", "compact form"),
        (f"{part([])}.{_PAYLOAD}.{_SIGNATURE}", "not a JWT"),
        (f"{part({'alg': 'none'})}.{_PAYLOAD}.", "alg: 'none' is not allowed"),
        (f"{part({'alg': 'NONE', 'kid': 'one'})}.{_PAYLOAD}.", "alg: 'NONE' is not allowed"),
        (f"{part({'alg': ['ES256']})}.{_PAYLOAD}.{_SIGNATURE}", "is not allowed"),
        (confused(), "alg: 'HS256' is not allowed"),
        (f"{_HEAD}.{part({'sub': PAGE, 'aud': 'reviews', 'exp': NOW + 999})}.{_SIGNATURE}", "signature"),
        (f"{part({'alg': 'ES256', 'kid': 'two'})}.{_PAYLOAD}.{_SIGNATURE}", "signature"),
        (f"{part({'alg': 'RS256', 'kid': 'one'})}.{_PAYLOAD}.{_SIGNATURE}", "signature"),
        (f"{_HEAD}.{_PAYLOAD}.", "signature"),
        (f"{part({'alg': 'ES256', 'kid': 'one', 'crit': ['b64'], 'b64': False})}.{_PAYLOAD}.{_SIGNATURE}", "crit"),
        (f"{part({'alg': 'ES256', 'kid': 'one', 'typ': 'at+jwt'})}.{_PAYLOAD}.{_SIGNATURE}", "typ"),
        (f"{part({'alg': 'ES256', 'jwk': jwk(EC_KEY, 'x'), 'kid': 'x'})}.{_PAYLOAD}.{_SIGNATURE}", "no key 'x'"),
        (token(ec.generate_private_key(ec.SECP256R1())), "signature"),
        (token(headers={"kid": "../../one"}), "no key"),
        (token(sub="page"), "sub: must be a SPIFFE ID"),
        (token(sub="spiffe://cluster.local"), "sub: must be a SPIFFE ID"),
        (token(sub="spiffe://elsewhere.example/ns/shop/sa/page"), "another trust domain"),
        (token(sub=None), "sub"),
        (token(aud=["ratings"]), "aud: the token is not for 'reviews'"),
        (token(aud="reviews.example"), "aud"),
        (token(aud=None), "aud"),
        (token(exp=NOW - 60), "exp: the token has expired"),
        (token(exp=None), "exp: must be a time"),
        (token(nbf=NOW + 60), "nbf: the token is not good yet"),
    ],
)  # fmt: skip
def test_bad_tokens(bad: str, words: str) -> None:
    with pytest.raises(BadToken, match=words.replace("[", r"\[")):
        validate(bad, "reviews", BUNDLE, NOW)


def test_times_that_are_none() -> None:
    """PyJWT does not make them."""
    for claims in ({"exp": "soon"}, {"exp": True}, {"exp": NOW + 60, "nbf": "now"}):
        body = part({"sub": PAGE, "aud": "reviews", **claims})
        signed = jwt.api_jws.encode(
            base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)),
            EC_KEY,
            "ES256",
            headers={"kid": "one", "typ": "JWT"},
        )
        with pytest.raises(BadToken, match="must be a time"):
            validate(signed, "reviews", BUNDLE, NOW)


@pytest.mark.parametrize(
    "keys",
    [
        (),
        (jwk(EC_KEY, "one", use="x509-svid"),),
        ({"kty": "oct", "k": "c2VjcmV0", "kid": "one", "use": "jwt-svid"},),
        ("one",),
    ],
    ids=["none", "of another use", "symmetric", "no key at all"],
)
def test_bundles_without_a_key_for_it(keys: tuple[Any, ...]) -> None:
    with pytest.raises(BadToken, match="has no key 'one'"):
        validate(token(), "reviews", bundle(*keys), NOW)
