"""The certificate authority: one root for all control planes on a store; what it signs, openssl's own rules accept."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
import stat
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from controlplane.citadel.authentication import Credentials
from controlplane.citadel.authority import ROOT_KEY, CertificateAuthority
from controlplane.citadel.kubeconfig import keep_admin_kubeconfig
from controlplane.citadel.server_certificates import ServerCertificates
from controlplane.citadel.signers import public_key_hash
from controlplane.citadel.tokens import TOKEN_KIND, Tokens
from controlplane.galley.sqlite_store import SqliteStore
from controlplane.model.credentials import Identity, Role, Unauthenticated

HOUR = datetime.timedelta(hours=1)


def signing_request(key: object = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "spiffe://cluster.local/ns/istio-system/sa/root")])
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)  # type: ignore[arg-type]


def der(chain: bytes) -> bytes:
    return x509.load_pem_x509_certificates(chain)[0].public_bytes(serialization.Encoding.DER)


def test_control_planes_that_start_at_once_have_one_root(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        authorities = await asyncio.gather(*(CertificateAuthority.open(store) for _ in range(5)))
        assert len({authority.pem for authority in authorities}) == 1
        await store.close()
        store = await SqliteStore.open(tmp_path / "store.db")
        again = await CertificateAuthority.open(store, trust_domain="other.example")
        assert again.pem == authorities[0].pem and again.trust_domain == "cluster.local"
        assert again.hash == public_key_hash(again.certificate) and len(again.hash) == 64
        assert [key.kind for key in (ROOT_KEY,)] == ["_CertificateAuthority"]
        await store.close()

    asyncio.run(main())


def test_a_server_is_known_by_its_names_and_renewed_while_it_runs(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        authority = await CertificateAuthority.open(store)
        certificates = ServerCertificates(
            authority, ["mesh.example", "10.0.0.7", "0.0.0.0"], datetime.timedelta(seconds=4)
        )
        assert certificates.names == ("localhost", "127.0.0.1", "::1", "mesh.example", "10.0.0.7")
        server = await asyncio.start_server(
            lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=certificates.context("h2")
        )
        port = server.sockets[0].getsockname()[1]

        def serial(name: str) -> int:
            context = ssl.create_default_context(cadata=authority.pem.decode())
            context.set_alpn_protocols(["h2"])
            with (
                socket.create_connection(("127.0.0.1", port)) as plain,
                context.wrap_socket(plain, server_hostname=name) as tls,
            ):
                assert tls.selected_alpn_protocol() == "h2" and tls.version() == "TLSv1.3"
                return int(tls.getpeercert()["serialNumber"], 16)  # type: ignore[index,arg-type]

        first = await asyncio.to_thread(serial, "localhost")
        assert await asyncio.to_thread(serial, "mesh.example") == await asyncio.to_thread(serial, "10.0.0.7") == first
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.to_thread(serial, "other.example")
        certificates.start()
        for _ in range(200):
            if await asyncio.to_thread(serial, "127.0.0.1") != first:
                break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError("the certificate was not renewed")
        await certificates.stop()
        server.close()
        await store.close()

    asyncio.run(main())


def test_a_workloads_certificate_says_what_the_token_says_and_nothing_of_the_request(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        authority = await CertificateAuthority.open(store)
        credentials = Credentials(Tokens(store, authority), authority)
        chain, certificate = authority.sign_workload(signing_request(), "shop", "reviews", HOUR)
        leaf, root = x509.load_pem_x509_certificates(chain)
        assert root == authority.certificate and leaf.subject == x509.Name([])
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert names.critical
        assert list(names.value) == [x509.UniformResourceIdentifier("spiffe://cluster.local/ns/shop/sa/reviews")]
        assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert certificate == leaf
        assert abs((leaf.not_valid_after_utc - datetime.datetime.now(datetime.UTC) - HOUR).total_seconds()) < 60
        identity = await credentials.authenticate(certificate=der(chain))
        assert identity == Identity(Role.WORKLOAD, "system:serviceaccount:shop:reviews", "shop", "reviews")
        await store.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        signing_request(rsa.generate_private_key(65537, 1024)),
        signing_request(ed25519.Ed25519PrivateKey.generate()),
    ],
    ids=["empty", "noise", "weak RSA", "Ed25519"],
)
def test_requests_that_are_not_certified(tmp_path: Path, request_: bytes) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        authority = await CertificateAuthority.open(store)
        with pytest.raises(ValueError, match=r"PEM|RSA|ECDSA"):
            authority.sign_workload(request_, "shop", "reviews", HOUR)
        await store.close()

    asyncio.run(main())


def test_certificates_of_others_and_expired_ones_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        (tmp_path / "other").mkdir()
        other_store = await SqliteStore.open(tmp_path / "other" / "store.db")
        authority = await CertificateAuthority.open(store)
        other = await CertificateAuthority.open(other_store)
        credentials = Credentials(Tokens(store, authority), authority)
        stranger, _ = other.sign_workload(signing_request(), "shop", "reviews", HOUR)
        expired, _ = authority.sign_workload(signing_request(), "shop", "reviews", -datetime.timedelta(minutes=1))
        server, _ = authority.server_certificate(["localhost"], HOUR)
        odd, _ = authority.sign_workload(signing_request(), "shop/sa/x", "reviews", HOUR)
        for certificate in (der(stranger), der(expired), der(server), der(odd), b"", b"noise"):
            with pytest.raises(Unauthenticated):
                await credentials.authenticate(certificate=certificate)
        with pytest.raises(Unauthenticated):
            await credentials.authenticate()
        await store.close()
        await other_store.close()

    asyncio.run(main())


def test_the_admins_file_is_private_and_its_token_lasts_over_restarts(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        authority = await CertificateAuthority.open(store)
        tokens = Tokens(store, authority)
        path = tmp_path / "admin.kubeconfig"
        await keep_admin_kubeconfig(path, "https://127.0.0.1:15080", tokens, authority)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        first = yaml.safe_load(path.read_text())
        assert first["contexts"][0]["context"]["namespace"] == "default"
        path.chmod(0o644)
        await keep_admin_kubeconfig(path, "https://127.0.0.1:15081", tokens, authority)
        second = yaml.safe_load(path.read_text())
        assert second["users"] == first["users"] and stat.S_IMODE(path.stat().st_mode) == 0o600
        assert second["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:15081"
        token = first["users"][0]["user"]["token"]
        assert (await tokens.identify(token)).role is Role.ADMIN
        for stored in (await store.list(TOKEN_KIND)).items:
            assert token.split("-")[-1].encode() not in stored.document, "the secret is kept hashed"
            await tokens.revoke(stored.key.name, who="test")
        path.write_text("no: kubeconfig: at all")
        await keep_admin_kubeconfig(path, "https://127.0.0.1:15080", tokens, authority)
        assert yaml.safe_load(path.read_text())["users"] != first["users"]
        assert [name for name in os.listdir(tmp_path) if "kubeconfig" in name] == ["admin.kubeconfig"]
        await store.close()

    asyncio.run(main())
