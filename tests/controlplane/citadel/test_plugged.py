"""An operator's own authority, made by openssl as Istio's guide has it; and what is wrong with those that are refused."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from controlplane.citadel.citadel import Citadel
from controlplane.citadel.plugged import InvalidAuthority, read_authority
from controlplane.cli.api import Api
from controlplane.cli.identity import join, renew, trusted_root
from controlplane.cli.kubeconfig import Access
from controlplane.galley.sqlite_store import SqliteStore
from tests.controlplane.citadel.test_authority import der, signing_request
from tests.controlplane.citadel.test_issuing import REVIEWS, SPIFFE_ID, identities, with_citadel
from tests.controlplane.whole import whole
from tests.running import Process

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")

_CA = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n"


def openssl(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def made(directory: Path, *, passphrase: str = "", extensions: str = _CA, key: str = "ec") -> Path:
    """A root and an intermediate below it, in Istio's files."""
    directory.mkdir()
    parameters = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"] if key == "ec" else ["-algorithm", "RSA"]
    encrypted = ["-aes256", "-pass", f"pass:{passphrase}"] if passphrase else []
    (directory / "root.ext").write_text(_CA)
    (directory / "ca.ext").write_text(extensions)
    openssl(directory, "genpkey", "-algorithm", "RSA", "-out", "root-key.pem")
    openssl(directory, "req", "-new", "-key", "root-key.pem", "-subj", "/O=Example/CN=Root", "-out", "root.csr")
    openssl(
        directory, "x509", "-req", "-in", "root.csr", "-signkey", "root-key.pem", "-days", "30",
        "-extfile", "root.ext", "-out", "root-cert.pem",
    )  # fmt: skip
    openssl(directory, "genpkey", *parameters, *encrypted, "-out", "ca-key.pem")
    password = ["-passin", f"pass:{passphrase}"] if passphrase else []
    openssl(directory, "req", "-new", "-key", "ca-key.pem", *password, "-subj", "/O=Example/CN=Mesh", "-out", "ca.csr")
    openssl(
        directory, "x509", "-req", "-in", "ca.csr", "-CA", "root-cert.pem", "-CAkey", "root-key.pem", "-CAcreateserial",
        "-days", "20", "-extfile", "ca.ext", "-out", "ca-cert.pem",
    )  # fmt: skip
    (directory / "cert-chain.pem").write_text(
        (directory / "ca-cert.pem").read_text() + (directory / "root-cert.pem").read_text()
    )
    (directory / "ca-key.pem").chmod(0o600)
    return directory


@pytest.mark.parametrize(("key", "passphrase"), [("ec", "open sesame"), ("rsa", "")])
def test_workloads_are_certified_under_a_given_intermediate(tmp_path: Path, key: str, passphrase: str) -> None:
    files = made(tmp_path / "ca", passphrase=passphrase, key=key)
    given = (files / "ca-key.pem").read_text()

    async def first(citadel: Citadel) -> None:
        chain = await citadel.issuance.certify(REVIEWS, signing_request(), lifetime=None, source="")
        assert identities(chain) == [SPIFFE_ID] and chain.count(b"BEGIN CERTIFICATE") == 3
        (tmp_path / "chain.pem").write_bytes(chain)
        (tmp_path / "roots.pem").write_text("".join(citadel.issuance.bundle().roots))
        usage = ["verify", "-x509_strict", "-CAfile", "roots.pem", "-untrusted", "chain.pem", "chain.pem"]
        assert openssl(tmp_path, *usage).strip() == "chain.pem: OK"
        assert [one.role for one in citadel.issuance.issuers()] == ["intermediate", "root"]

    with_citadel(tmp_path, first, ca_directory=files, passphrase=passphrase)
    for path in (tmp_path / "store.db", tmp_path / "store.db-wal"):
        if path.exists():
            assert given.splitlines()[1].encode() not in path.read_bytes(), "the key stays where it was given"


def test_what_was_issued_before_another_authority_is_given_stays_good(tmp_path: Path) -> None:
    chains: list[bytes] = []

    async def own(citadel: Citadel) -> None:
        chains.append(await citadel.issuance.certify(REVIEWS, signing_request(), lifetime=None, source=""))

    async def given(citadel: Citadel) -> None:
        assert (await citadel.credentials.authenticate(certificate=der(chains[0]))).service_account == "reviews"
        assert len(citadel.issuance.bundle().roots) == 2
        signing, *_ = citadel.issuance.issuers()
        assert "O=cluster.local" in signing.subject and signing.signing, "the new one signs when all have heard of it"
        await citadel.rotations.force(who="admin")
        signing, *_ = citadel.issuance.issuers()
        assert "CN=Mesh" in signing.subject and signing.signing

    with_citadel(tmp_path, own)
    with_citadel(tmp_path, given, ca_directory=made(tmp_path / "ca"))


def test_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    files = made(tmp_path / "ca", passphrase="open sesame")

    def complaint(passphrase: str = "open sesame", trust_domain: str = "cluster.local", where: Path = files) -> str:
        with pytest.raises(InvalidAuthority) as caught:
            read_authority(where, passphrase, trust_domain)
        return str(caught.value)

    read_authority(files, "open sesame", "cluster.local")
    assert "is encrypted: give its passphrase" in complaint("")
    assert "the passphrase is wrong" in complaint("close sesame")
    (files / "ca-key.pem").chmod(0o640)
    assert "chmod 600" in complaint()
    (files / "ca-key.pem").chmod(0o600)
    other = made(tmp_path / "other", extensions="basicConstraints=critical,CA:FALSE\n")
    assert "CA:FALSE" in complaint("", where=other)
    foreign = made(tmp_path / "foreign", extensions=_CA + "subjectAltName=URI:spiffe://other.example\n")
    assert "the mesh's trust domain is cluster.local" in complaint("", where=foreign)
    shutil.copy(other / "root-cert.pem", files / "root-cert.pem")
    (files / "cert-chain.pem").unlink()
    assert "has nothing between" in complaint()
    shutil.copy(other / "ca-key.pem", files / "ca-key.pem")
    assert "is not the key of ca-cert.pem" in complaint("")
    (files / "ca-cert.pem").write_text("noise")
    assert "no certificates in PEM" in complaint("")


def test_a_control_plane_without_the_files_does_not_sign_in_their_name(tmp_path: Path) -> None:
    async def nothing(citadel: Citadel) -> None: ...

    with_citadel(tmp_path, nothing, ca_directory=made(tmp_path / "ca"))

    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        try:
            with pytest.raises(Exception, match="--ca-directory"):
                await Citadel.open(store, tmp_path)
        finally:
            await store.close()

    asyncio.run(main())


def test_a_mesh_under_a_given_intermediate_is_joined_and_asked(tmp_path: Path) -> None:
    files = made(tmp_path / "ca", passphrase="open sesame")
    secret = tmp_path / "passphrase"
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    options = ("--ca-directory", str(files), "--ca-passphrase-file", str(secret))
    with whole(tmp_path / "mesh", *options) as mesh:
        server, identity = f"https://127.0.0.1:{mesh.api_port}", tmp_path / "identity"
        body = {"namespace": "shop", "serviceAccount": "reviews"}
        token = mesh.api.request("POST", "/mizzen/v1/tokens", body)["token"]
        api = Api(Access(server, trusted_root(server, token), ""))
        join(api, token, identity)
        first = (identity / "chain.pem").read_text()
        assert first.count("BEGIN CERTIFICATE") == 3 and first.endswith((files / "root-cert.pem").read_text())
        renew(Api(Access(server, trusted_root(server, token), "")), identity)
        assert (identity / "chain.pem").read_text() != first
        shown = mesh.mizzen("certs")
        assert "intermediate, signs" in shown and "CN=Root" in shown and SPIFFE_ID in shown
        stored = b"".join(path.read_bytes() for path in (tmp_path / "mesh").glob("store.sqlite*"))
        assert b"PRIVATE KEY" not in stored
        mesh.kill()
        secret.write_text("close sesame")
        again = Process("controlplane", "--data-dir", str(tmp_path / "mesh"), *options)
        try:
            again.wait_for("the passphrase is wrong")
        finally:
            again.__exit__()
