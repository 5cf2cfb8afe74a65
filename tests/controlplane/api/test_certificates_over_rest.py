"""Certificates over REST: come in, stay, ask for the trust bundle and for JWT-SVIDs."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.citadel.authority_state import with_roots
from controlplane.citadel.signers import new_root
from tests.controlplane.api.serving import Background, Client
from tests.controlplane.citadel.test_authority import signing_request

CERTIFICATES = "/mizzen/v1/certificates"
BUNDLE = "/mizzen/v1/trust-bundle"


@pytest.fixture
def workload(background: Background, client: Client, tmp_path: Path) -> Client:
    """A client with the certificate of shop/reviews, by a join token."""
    return joined(background, client, tmp_path)


def joined(background: Background, client: Client, directory: Path, account: str = "reviews") -> Client:
    text = client("POST", "/mizzen/v1/tokens", {"namespace": "shop", "serviceAccount": account}).json["token"]
    key = ec.generate_private_key(ec.SECP256R1())
    body = {"token": text, "certificateSigningRequest": signing_request(key).decode(), "lifetime": 600}
    answer = Client(background, "")("POST", "/mizzen/v1/join", body)
    assert answer.status == 201
    return with_certificate(background, answer.json["certificateChain"], key, directory)


def with_certificate(background: Background, chain: str, key: Any, directory: Path) -> Client:
    (directory / "chain.pem").write_text(chain)
    (directory / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    client = Client(background, "")
    client.tls.load_cert_chain(directory / "chain.pem", directory / "key.pem")
    return client


def leaf_of(answer: Any) -> x509.Certificate:
    return x509.load_pem_x509_certificates(answer.json["certificateChain"].encode())[0]


def test_a_certificate_is_renewed_by_itself_alone(background: Background, client: Client, workload: Client) -> None:
    renewed = workload(
        "POST", "/mizzen/v1/renew", {"certificateSigningRequest": signing_request().decode(), "lifetime": 60}
    )
    assert renewed.status == 201
    leaf = leaf_of(renewed)
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds() == 360
    too_long = {"certificateSigningRequest": signing_request().decode(), "lifetime": 1e8}
    refused = workload("POST", "/mizzen/v1/renew", too_long)
    assert refused.status == 422 and refused.message.startswith("lifetime: ")
    assert client("POST", "/mizzen/v1/renew", {"certificateSigningRequest": "x"}).status == 403
    text = client("POST", "/mizzen/v1/tokens", {"namespace": "shop", "serviceAccount": "reviews"}).json["token"]
    by_token = Client(background, text)("POST", "/mizzen/v1/renew", {"certificateSigningRequest": "x"})
    assert by_token.status == 401 and "mizzen join" in by_token.message


def test_an_admin_says_for_whom_and_a_workload_gets_its_own(client: Client, workload: Client) -> None:
    asked = {"certificateSigningRequest": signing_request().decode()}
    made = client("POST", CERTIFICATES, {**asked, "namespace": "shop", "serviceAccount": "page"})
    assert made.status == 201
    own = workload("POST", CERTIFICATES, asked)
    assert own.status == 201
    other = workload("POST", CERTIFICATES, {**asked, "namespace": "shop", "serviceAccount": "page"})
    assert other.status == 403 and "another" in other.message
    for body in (asked, {**asked, "namespace": "shop"}, {**asked, "namespace": "S/hop", "serviceAccount": "a"}):
        assert client("POST", CERTIFICATES, body).status == 422
    listed = {one["serial"]: one for one in client("GET", CERTIFICATES).json}
    page = listed[f"{leaf_of(made).serial_number:x}"]
    assert page["identity"] == "spiffe://cluster.local/ns/shop/sa/page" and page["requester"] == "admin"
    assert page["notAfter"] > page["issuedAt"] > time.time() - 60 and page["source"].startswith("127.0.0.1:")
    mine = listed[f"{leaf_of(own).serial_number:x}"]
    assert mine["requester"] == "system:serviceaccount:shop:reviews" and mine["authenticated"].startswith(
        "certificate "
    )
    assert workload("GET", CERTIFICATES).status == 403
    (root,) = client("GET", CERTIFICATES + "/authority").json
    assert root["role"] == "root" and root["signing"] and root["key"] == "ECDSA secp256r1"


def test_the_trust_bundle_is_told_to_anybody_and_changes_to_who_waits(background: Background, workload: Client) -> None:
    anybody = Client(background, "")
    bundle = anybody("GET", BUNDLE).json
    authority = background.served.authority
    assert bundle["trustDomain"] == "cluster.local" and bundle["roots"] == authority.pem.decode()
    assert bundle["crl"] == "" and bundle["refreshHint"] > 0
    assert [key["alg"] for key in bundle["jwks"]["keys"]] == ["ES256"]
    assert anybody("GET", f"{BUNDLE}?wait=5").status == 401
    assert anybody("GET", f"{BUNDLE}?have=x").status == 422
    version = bundle["version"]
    assert workload("GET", f"{BUNDLE}?have={version - 1}&wait=30").json == bundle
    assert workload("GET", f"{BUNDLE}?have={version}&wait=0").json == bundle
    assert workload("GET", f"{BUNDLE}?have={version + 1}&wait=0").json == bundle
    (confirmation,) = background.served.citadel.bundles.confirmations()
    assert (confirmation.identity, confirmation.source, confirmation.version) == (
        "spiffe://cluster.local/ns/shop/sa/reviews", "127.0.0.1", version,
    )  # fmt: skip
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(workload("GET", f"{BUNDLE}?have={version}&wait=30").json))
    waiting.start()
    another = new_root("cluster.local").root
    background.call(authority.change(lambda state: with_roots(state, [another]), who="test"))
    waiting.join(20)
    (changed,) = answers
    assert changed["version"] > version
    assert len(x509.load_pem_x509_certificates(changed["roots"].encode())) == 2
    spiffe = anybody("GET", f"{BUNDLE}/spiffe").json
    assert [key["use"] for key in spiffe["keys"]] == ["x509-svid", "x509-svid", "jwt-svid"]
    assert spiffe["spiffe_sequence"] == changed["version"]


def test_a_jwt_svid_is_verified_by_the_keys_in_the_trust_bundle(
    background: Background, client: Client, workload: Client
) -> None:
    made = workload("POST", "/mizzen/v1/jwt-svids", {"audience": ["reports", "other"], "lifetime": 60})
    assert made.status == 201
    jwks = jwt.PyJWKSet.from_dict(Client(background, "")("GET", BUNDLE).json["jwks"])
    token = made.json["token"]
    claims = jwt.decode(token, jwks[jwt.get_unverified_header(token)["kid"]], ["ES256"], audience="reports")
    assert claims["sub"] == "spiffe://cluster.local/ns/shop/sa/reviews" and claims["exp"] == made.json["expiresAt"]
    assert claims["exp"] - claims["iat"] == 60
    for body, field in (
        ({}, "audience"), ({"audience": []}, "audience"), ({"audience": ["", "a"]}, "audience"),
        ({"audience": ["a"], "lifetime": 3601}, "lifetime"), ({"audience": "a"}, "audience"),
    ):  # fmt: skip
        refused = workload("POST", "/mizzen/v1/jwt-svids", body)
        assert refused.status == 422 and refused.message.startswith(f"{field}: "), body
    assert client("POST", "/mizzen/v1/jwt-svids", {"audience": ["a"]}).status == 403


def test_who_asks_with_a_credential_that_is_not_good_is_written_down(background: Background, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    chain, _ = background.served.authority.sign_workload(
        signing_request(key), "shop/sa/x", "reviews", timedelta(hours=1)
    )
    odd = with_certificate(background, chain.decode(), key, tmp_path)
    log = background.served.citadel.audit.path

    def last() -> Any:
        return json.loads(log.read_text().splitlines()[-1])

    assert odd("POST", "/mizzen/v1/renew", {"certificateSigningRequest": "x"}).status == 401
    line = last()
    assert line["event"] == "refused" and "no SPIFFE ID" in line["reason"] and "certificate" in line["authenticated"]
    assert line["source"].startswith("127.0.0.1:")
    assert Client(background, "mizzen-admin-a-b")("POST", CERTIFICATES, {}).status == 401
    assert last()["authenticated"] == "a token" and "unknown" in last()["reason"]
    before = log.read_text()
    assert Client(background, "mizzen-admin-a-b")("GET", CERTIFICATES).status == 401
    assert log.read_text() == before, "who only looks asks for no identity"


def test_a_join_token_elsewhere_is_refused_written_down_and_not_used_up(background: Background, client: Client) -> None:
    token = client("POST", "/mizzen/v1/tokens", {"namespace": "shop", "serviceAccount": "late"}).json["token"]
    log = background.served.citadel.audit.path
    for method, path in (("GET", CERTIFICATES), ("GET", "/apis"), ("POST", "/mizzen/v1/renew"), ("POST", CERTIFICATES)):
        before = len(log.read_text().splitlines())
        refused = Client(background, token)(method, path, None if method == "GET" else {})
        assert refused.status == 401 and "mizzen join" in refused.message and token not in refused.message
        (line,) = [json.loads(one) for one in log.read_text().splitlines()[before:]]
        assert line["event"] == "refused" and line["authenticated"] == f"join token {token.split('-')[2]}"
        assert line["source"].startswith("127.0.0.1:") and "not used up" in line["reason"]
    body = {"token": token, "certificateSigningRequest": signing_request().decode()}
    assert Client(background, "")("POST", "/mizzen/v1/join", body).status == 201
    before = len(log.read_text().splitlines())
    assert Client(background, token)("GET", "/apis").status == 401
    assert len(log.read_text().splitlines()) == before, "one that is used up is worth nothing anywhere"
