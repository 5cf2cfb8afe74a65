"""What is read of an identity's files and of the control plane's answers, and what is refused."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.nodeagent.identity_directory import BadIdentity, Renewing, read_renewing
from controlplane.nodeagent.svid import new_key, parse_svid
from controlplane.nodeagent.trust_bundle import parse_bundle

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
HOUR = datetime.timedelta(hours=1)


class Authority:
    """A root, and what it signs."""

    def __init__(self, name: str = "mesh") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, name)])
        self.pem = self.certify(self.key, self.name, ())

    def certify(self, key: ec.EllipticCurvePrivateKey, subject: x509.Name, uris: tuple[str, ...]) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - HOUR)
            .not_valid_after(NOW + HOUR)
        )
        if uris:
            names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
            builder = builder.add_extension(names, critical=True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def revocations(self) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder().issuer_name(self.name).last_update(NOW).next_update(NOW + HOUR)
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


AUTHORITY, OTHER = Authority(), Authority("other")
REVIEWS = "spiffe://cluster.local/ns/shop/sa/reviews"


def leaf(*uris: str) -> tuple[bytes, bytes]:
    key, _ = new_key()
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return AUTHORITY.certify(private, x509.Name([]), uris), key


def test_the_root_is_not_of_the_chain() -> None:
    chain, key = leaf(REVIEWS)
    svid = parse_svid(chain + AUTHORITY.pem, key)
    assert (svid.spiffe_id, svid.trust_domain, svid.chain) == (REVIEWS, "cluster.local", chain)
    assert svid.not_after == (NOW + HOUR).timestamp()
    assert "PRIVATE" not in repr(svid)


@pytest.mark.parametrize(
    ("uris", "words"),
    [
        ((), "no SPIFFE ID"),
        (("https://example.com/",), "must have one URI name"),
        ((REVIEWS, "spiffe://cluster.local/ns/shop/sa/page"), "must have one URI name"),
        (("spiffe://cluster.local",), "must have one URI name"),
        (("spiffe://Cluster.Local/ns/shop/sa/page",), "must have one URI name"),
    ],
)
def test_certificates_of_no_workload(uris: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_svid(*leaf(*uris))


def test_pairs_that_are_none() -> None:
    chain, key = leaf(REVIEWS)
    for bad_chain, bad_key, words in (
        (chain, new_key()[0], "the key is not the certificate's"),
        (b"", key, "not PEM"),
        (chain[:200], key, "not PEM"),
        (chain, key[:100], "not PEM, or encrypted"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            parse_svid(bad_chain, bad_key)
        assert key.decode().splitlines()[1] not in str(caught.value)


def answer(**changes: Any) -> dict[str, Any]:
    found = {
        "trustDomain": "cluster.local",
        "version": 3,
        "roots": (AUTHORITY.pem + OTHER.pem).decode(),
        "crl": (AUTHORITY.revocations() + OTHER.revocations()).decode(),
        "jwks": {"keys": []},
        "refreshHint": 300,
    }
    return {**found, **changes}


def test_a_bundle() -> None:
    told = answer()
    bundle = parse_bundle(told, "cluster.local")
    assert bundle.version == "3" and len(bundle.crl_der) == 2
    for der in bundle.crl_der:
        x509.load_der_x509_crl(der)
    assert parse_bundle(json.loads(bundle.document()), "cluster.local") == bundle, "as it is kept"
    less = parse_bundle({**told, "roots": AUTHORITY.pem.decode(), "version": 4}, "cluster.local")
    assert less.digest != bundle.digest
    assert parse_bundle({**told, "version": 9, "jwks": {"keys": [{}]}}, "cluster.local").digest == bundle.digest


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([], "not an object"),
        (answer(trustDomain="elsewhere.example"), "trustDomain: the bundle is of 'elsewhere.example'"),
        (answer(roots=""), "roots"),
        (answer(roots=["x"]), "roots"),
        (answer(roots="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "roots"),
        (answer(crl="garbage"), "crl"),
        (answer(crl="-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"), "crl"),
        (answer(jwks=[]), None),
        (answer(jwks={"keys": 1}), "jwks"),
        (answer(jwks="x"), "jwks"),
        (answer(version=True), "version"),
    ],
)
def test_bundles_that_are_none(bad: Any, words: str | None) -> None:
    if words is None:
        assert json.loads(parse_bundle(bad, "cluster.local").jwks) == {"keys": []}
        return
    with pytest.raises(ValueError, match=words):
        parse_bundle(bad, "cluster.local")


def written(directory: Path, **document: Any) -> Path:
    found = directory / "shop" / "reviews"
    found.mkdir(parents=True, exist_ok=True)
    (found / "agent.json").write_text(json.dumps(document))
    return found


def test_how_an_identity_is_renewed(tmp_path: Path) -> None:
    renewing = Renewing("https://10.0.0.1:15080", "shop", "reviews", 3600.0, (1001, 0))
    assert read_renewing(written(tmp_path, **json.loads(renewing.document()))) == renewing
    short = read_renewing(written(tmp_path, server="https://[::1]:15080"))
    assert (short.namespace, short.service_account, short.lifetime, short.uids) == ("shop", "reviews", None, None)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "server: must be a text"),
        ({"server": "http://10.0.0.1:15080"}, "server: must be a URL such as https://"),
        ({"server": "https://a", "namespace": "other"}, "namespace: is 'other', but the directory is 'shop'"),
        ({"server": "https://a", "lifetime": 0}, "lifetime"),
        ({"server": "https://a", "lifetime": True}, "lifetime"),
        ({"server": "https://a", "lifetime": 91 * 86400}, "lifetime"),
        ({"server": "https://a", "uid": []}, "uid: must be a list of one or more user ids"),
        ({"server": "https://a", "uid": 1000}, "uid"),
        ({"server": "https://a", "uid": [True]}, "uid"),
        ({"server": "https://a", "uid": [-1]}, "uid"),
        ({"server": "https://a", "uid": ["root"]}, "uid"),
        ({"server": "https://a", "uids": [1]}, "uids: is not known"),
    ],
)
def test_how_it_is_not(document: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadIdentity, match=words) as caught:
        read_renewing(written(tmp_path, **document))
    assert str(tmp_path) in str(caught.value)


def test_without_agent_json(tmp_path: Path) -> None:
    (tmp_path / "shop" / "reviews").mkdir(parents=True)
    with pytest.raises(BadIdentity, match="give --server, or join again"):
        read_renewing(tmp_path / "shop" / "reviews")
    assert read_renewing(tmp_path / "shop" / "reviews", server="https://a:1").server == "https://a:1"
