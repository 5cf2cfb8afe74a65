"""Join tokens over REST: an operator makes one, a workload trades it, once."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509

from controlplane.citadel.signers import public_key_hash
from tests.controlplane.api.serving import Background, Client
from tests.controlplane.citadel.test_authority import signing_request

TOKENS = "/mizzen/v1/tokens"


def test_a_token_is_made_told_once_and_traded(background: Background, client: Client) -> None:
    made = client("POST", TOKENS, {"namespace": "shop", "serviceAccount": "reviews", "lifetime": 60})
    assert made.status == 201
    text, id = made.json["token"], made.json["id"]
    listed = next(one for one in client("GET", TOKENS).json if one["id"] == id)
    assert "token" not in listed and listed["created_by"] == "admin" and listed["used"] is False
    request = {"token": text, "certificateSigningRequest": signing_request().decode()}
    joined = Client(background, "")("POST", "/mizzen/v1/join", request)
    assert joined.status == 201
    chain = x509.load_pem_x509_certificates(joined.json["certificateChain"].encode())
    assert chain[-1] == background.served.authority.certificate
    again = Client(background, "")("POST", "/mizzen/v1/join", request)
    assert again.status == 401 and "used before" in again.message
    assert next(one for one in client("GET", TOKENS).json if one["id"] == id)["used"] is True


def test_one_who_joins_can_tell_the_right_control_plane_by_the_token(background: Background, client: Client) -> None:
    text = client("POST", TOKENS, {"serviceAccount": "reviews"}).json["token"]
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    stranger = Client(background, "")
    stranger.tls = unchecked
    told = stranger("POST", "/mizzen/v1/join", {"token": text, "certificateSigningRequest": signing_request().decode()})
    root = x509.load_pem_x509_certificates(told.json["certificateChain"].encode())[-1]
    assert public_key_hash(root) == text.rpartition("-")[2]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "serviceAccount"),
        ({"serviceAccount": "a", "namespace": "Shop"}, "namespace"),
        ({"serviceAccount": 5}, "serviceAccount"),
        ({"serviceAccount": "a", "lifetime": 0}, "lifetime"),
        ({"serviceAccount": "a", "lifetime": 1e9}, "lifetime"),
        ({"serviceAccount": "a", "lifetime": True}, "lifetime"),
        ({"serviceAccount": "a", "lifetme": 5}, "lifetme"),
        ({"serviceAccount": "a", "name": "x"}, "name"),
        ({"role": "viewer"}, "name"),
        ({"role": "viewer", "name": "x", "namespace": "shop"}, "namespace"),
        ({"role": "root", "name": "x"}, "role"),
    ],
)
def test_tokens_that_are_not_made(client: Client, body: object, field: str) -> None:
    refused = client("POST", TOKENS, body)
    assert refused.status == 422 and refused.message.startswith(f"{field}: ")


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("admin", 201)])
def test_tokens_of_people(background: Background, client: Client, role: str, status: int) -> None:
    made = client("POST", TOKENS, {"role": role, "name": "ann", "lifetime": 600})
    ann = Client(background, made.json["token"])
    assert ann("GET", TOKENS).status == 200
    assert ann("POST", TOKENS, {"serviceAccount": "a"}).status == status
    assert [one["name"] for one in client("GET", TOKENS).json if one["id"] == made.json["id"]] == ["ann"]
    assert client("DELETE", f"{TOKENS}/{made.json['id']}").status == 204
    assert ann("GET", TOKENS).status == 401


def test_a_join_token_is_revoked(background: Background, client: Client) -> None:
    made = client("POST", TOKENS, {"serviceAccount": "reviews"}).json
    assert client("DELETE", f"{TOKENS}/{made['id']}").status == 204
    assert client("DELETE", f"{TOKENS}/{made['id']}").status == 404
    request = {"token": made["token"], "certificateSigningRequest": signing_request().decode()}
    assert Client(background, "")("POST", "/mizzen/v1/join", request).status == 401
    assert Client(background, "")("POST", "/mizzen/v1/join", {"token": "x"}).status == 422


def test_a_slip_in_the_request_does_not_cost_the_token(background: Background, client: Client, tmp_path: Path) -> None:
    text = client("POST", TOKENS, {"serviceAccount": "reviews"}).json["token"]
    workload = Client(background, "")
    slip = workload("POST", "/mizzen/v1/join", {"token": text, "certificateSigningRequest": "noise"})
    assert slip.status == 422 and "PEM" in slip.message
    request = {"token": text, "certificateSigningRequest": signing_request().decode()}
    assert workload("POST", "/mizzen/v1/join", request).status == 201
