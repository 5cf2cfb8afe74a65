"""Who may talk to the API, and how much at once."""

from __future__ import annotations

import datetime
import http.client
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from controlplane.api.access import EVERYBODY, Rule
from controlplane.api.status import ApiError
from controlplane.model.credentials import Role
from tests.controlplane.api.serving import Background, Client, Watcher, collection, virtual_service


@pytest.fixture
def viewer(background: Background) -> Client:
    return Client(background, background.call(background.served.tokens.issue(Role.VIEWER, "looker"))[1])


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/version"])
def test_health_and_version_need_no_credential(background: Background, path: str) -> None:
    assert Client(background, "")("GET", path).status == 200


@pytest.mark.parametrize("path", ["/api", "/apis", "/openapi/v2", collection(), "/mizzen/v1/tokens", "/nowhere"])
def test_everything_else_needs_one(background: Background, path: str) -> None:
    refused = Client(background, "")("GET", path)
    assert refused.status == 401 and refused.json["kind"] == "Status" and refused.json["reason"] == "Unauthorized"
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="mizzen"'


@pytest.mark.parametrize(
    "token", ["x", "mizzen-admin-00-00", "mizzen-admin", "é", "mizzen-admin-" + "0" * 5000, "mizzen-admin-../x-y"]
)
def test_a_token_that_is_none_is_refused(background: Background, token: str) -> None:
    refused = Client(background, "")("GET", "/apis", Authorization=f"Bearer {token}".encode().decode("latin-1"))
    assert refused.status == 401


def test_the_secret_of_a_token_and_its_role_both_count(background: Background) -> None:
    _, role, id, secret = background.served.admin_token.split("-")
    for forged in (
        f"mizzen-viewer-{id}-{secret}",
        f"mizzen-{role}-{id}-{secret[:-1]}{'0' if secret[-1] != '0' else '1'}",
    ):
        assert Client(background, forged)("GET", "/apis").status == 401


def test_a_viewer_reads_but_no_secrets_and_writes_nothing(viewer: Client, client: Client, namespace: str) -> None:
    assert client("POST", collection(namespace), virtual_service("a", namespace)).status == 201
    assert viewer("GET", f"{collection(namespace)}/a").status == 200
    for method, path in (
        ("POST", collection(namespace)),
        ("PUT", f"{collection(namespace)}/a"),
        ("PATCH", f"{collection(namespace)}/a"),
        ("DELETE", f"{collection(namespace)}/a"),
        ("DELETE", collection(namespace)),
        ("GET", "/api/v1/secrets"),
        ("GET", f"/api/v1/namespaces/{namespace}/secrets/x"),
        ("GET", "/mizzen/v1/history?kind=Secret&name=x"),
        ("POST", "/mizzen/v1/tokens"),
    ):
        refused = viewer(method, path, {} if method != "GET" else None)
        assert refused.status == 403 and "looker" in refused.message, path
    assert client("GET", f"{collection(namespace)}/a").status == 200


def test_a_revoked_token_ends_at_once(background: Background, viewer: Client) -> None:
    assert viewer("GET", "/apis").status == 200
    assert background.call(background.served.tokens.revoke(viewer.token.split("-")[2], who="admin"))
    assert viewer("GET", "/apis").status == 401


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:15080", "10.1.2.3:15080"])
def test_addresses_and_localhost_are_this_server(client: Client, host: str) -> None:
    assert client("GET", "/version", Host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:15080", "", "[", "a@b"]
)
def test_another_host_is_refused(client: Client, host: str) -> None:
    assert client("GET", "/version", Host=host).status in (400, 403)


def test_a_page_of_another_origin_is_refused(client: Client) -> None:
    own = f"127.0.0.1:{client.port}"
    assert client("GET", "/apis", Origin=f"https://{own}").status == 200
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        assert client("GET", "/apis", Origin=origin).status == 403


def test_a_server_goes_by_the_names_that_it_is_given(tmp_path: Path) -> None:
    with Background(tmp_path, names=["mesh.example"]) as background:
        assert Client(background)("GET", "/apis", Host="Mesh.Example:15080").status == 200
        assert Client(background)("GET", "/apis", Host="other.example").status == 403


def test_a_workload_sees_what_is_opened_for_workloads(tmp_path: Path) -> None:
    async def who(request: Request) -> Response:
        identity = request.state.identity
        return JSONResponse([identity.role, identity.namespace, identity.service_account])

    async def fails(request: Request) -> Response:
        raise ApiError(409, "not now")

    routes = [Route("/v3/who", who), Route("/mizzen/v1/fails", fails)]
    with Background(tmp_path, routes=routes, rules=[Rule("/v3/", EVERYBODY, EVERYBODY)]) as background:
        served = background.served
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        chain, _ = served.authority.sign_workload(
            request.public_bytes(serialization.Encoding.PEM), "shop", "reviews", datetime.timedelta(hours=1)
        )
        (tmp_path / "chain.pem").write_bytes(chain)
        (tmp_path / "key.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        workload = Client(background, "")
        workload.tls.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
        assert workload("GET", "/v3/who").json == ["workload", "shop", "reviews"]
        assert workload("GET", "/api").status == 200
        for path in (collection("shop"), "/mizzen/v1/fails", "/api/v1/namespaces"):
            assert workload("GET", path).status == 403
        assert Client(background)("GET", "/mizzen/v1/fails").message == "not now"


def test_a_certificate_of_another_authority_fails_the_handshake(background: Background, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "stranger")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "both.pem").write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    stranger = Client(background, "")
    stranger.tls.load_cert_chain(tmp_path / "both.pem")
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        stranger("GET", "/healthz")


def test_more_requests_than_there_is_room_for_get_429(tmp_path: Path) -> None:
    with Background(tmp_path, most_watches=1) as background:
        client = Client(background)
        with Watcher(client, f"{collection()}?watch=true") as watcher:
            assert watcher.response.status == 200
            refused = client("GET", f"{collection()}?watch=true")
            assert refused.status == 429 and refused.headers["Retry-After"] == "1"
            assert refused.json["reason"] == "TooManyRequests"
            assert client("GET", collection()).status == 200
    (tmp_path / "second").mkdir()
    with Background(tmp_path / "second", most_requests=0) as background:
        assert Client(background)("GET", collection()).status == 429


def test_a_head_that_does_not_end_is_not_kept(client: Client) -> None:
    try:
        status = client("GET", "/apis", X_Large="x" * 200_000).status
    except ConnectionError:  # it was closed while the rest of the head was still on its way
        status = 0
    assert status in (0, 400, 431)
    assert client("GET", "/version").status == 200


def test_answers_do_not_wait_for_acknowledgements(client: Client) -> None:
    """Head and body come in two writes: with Nagle's algorithm on, every answer would take 40 ms."""
    connection, response = client.open("GET", "/version")
    response.read()
    times = []
    for _ in range(20):
        began = time.monotonic()
        connection.request("GET", "/version")
        assert connection.getresponse().read()
        times.append(time.monotonic() - began)
    connection.close()
    assert min(times) < 0.03 and sorted(times)[5] < 0.035
