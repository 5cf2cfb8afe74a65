"""Join tokens over REST: an operator makes one, a workload trades it, once."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509

from controlplane.citadel.authority import public_key_hash
from tests.controlplane.api.serving import Background, Client
from tests.controlplane.citadel.test_authority import signing_request

TOKENS = "/mizzen/v1/join-tokens"


def test_a_token_is_made_told_once_and_traded(background: Background, client: Client) -> None:
    made = client("POST", TOKENS, {"namespace": "shop", "serviceAccount": "reviews", "lifetimeSeconds": 60})
    assert made.status == 201
    text, id = made.json["token"], made.json["id"]
    listed = next(one for one in client("GET", TOKENS).json["items"] if one["id"] == id)
    assert "token" not in listed and listed["createdBy"] == "admin" and listed["used"] is False
    request = {"token": text, "certificateSigningRequest": signing_request().decode()}
    joined = Client(background, "")("POST", "/mizzen/v1/join", request)
    assert joined.status == 201
    chain = x509.load_pem_x509_certificates(joined.json["certificateChain"].encode())
    assert chain[-1] == background.served.authority.certificate
    again = Client(background, "")("POST", "/mizzen/v1/join", request)
    assert again.status == 401 and "used before" in again.message
    assert next(one for one in client("GET", TOKENS).json["items"] if one["id"] == id)["used"] is True


def test_one_who_joins_can_tell_the_right_control_plane_by_the_token(background: Background, client: Client) -> None:
    text = client("POST", TOKENS, {}).json["token"]
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    stranger = Client(background, "")
    stranger.tls = unchecked
    told = stranger("POST", "/mizzen/v1/join", {"token": text, "certificateSigningRequest": signing_request().decode()})
    root = x509.load_pem_x509_certificates(told.json["certificateChain"].encode())[-1]
    assert public_key_hash(root) == text.rpartition("-")[2]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"namespace": "Shop"}, 422),
        ({"serviceAccount": 5}, 422),
        ({"lifetimeSeconds": 0}, 422),
        ({"lifetimeSeconds": 1e9}, 422),
        ({"lifetimeSeconds": True}, 422),
        ({"name": "x"}, 422),
        ([], 400),
    ],
)
def test_tokens_that_are_not_made(client: Client, body: object, status: int) -> None:
    assert client("POST", TOKENS, body).status == status


def test_a_token_is_revoked_but_no_other_kind_by_this_way(background: Background, client: Client) -> None:
    made = client("POST", TOKENS, {}).json
    assert client("DELETE", f"{TOKENS}/{made['id']}").status == 200
    assert client("DELETE", f"{TOKENS}/{made['id']}").status == 404
    assert client("DELETE", f"{TOKENS}/{client.token.split('-')[2]}").status == 404
    request = {"token": made["token"], "certificateSigningRequest": signing_request().decode()}
    assert Client(background, "")("POST", "/mizzen/v1/join", request).status == 401
    assert Client(background, "")("POST", "/mizzen/v1/join", {"token": "x"}).status == 422


def test_a_slip_in_the_request_does_not_cost_the_token(background: Background, client: Client, tmp_path: Path) -> None:
    text = client("POST", TOKENS, {}).json["token"]
    workload = Client(background, "")
    slip = workload("POST", "/mizzen/v1/join", {"token": text, "certificateSigningRequest": "noise"})
    assert slip.status == 422 and "PEM" in slip.message
    request = {"token": text, "certificateSigningRequest": signing_request().decode()}
    assert workload("POST", "/mizzen/v1/join", request).status == 201
