"""The certificate authority: what it signs with and which roots are trusted, shared by all control planes on one store."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane.citadel.authority_state import (
    AuthorityState,
    ledger_document,
    ledger_fields,
    with_roots,
    with_signer,
)
from controlplane.citadel.horizons import Horizons
from controlplane.citadel.requests import CertifiedKey, judge_account, judged_key
from controlplane.citadel.rotation import begin
from controlplane.citadel.sealing import Sealing
from controlplane.citadel.signers import (
    SKEW,
    Signer,
    key_pem,
    key_usage,
    load_key,
    new_root,
    pem,
    public_key_hash,
    signature_hash,
)
from controlplane.model.authority_operations import NotNow
from controlplane.model.certificates import CannotIssue, InvalidRequest, IssuerCertificate, NotAllowed
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Conflict, Store, Stored

KIND: Final = "_CertificateAuthority"
ROOT_KEY: Final = ResourceKey(KIND, "", "root")
_PURPOSE: Final = "authority's key"
_IDENTITY: Final = re.compile(r"spiffe://([a-z0-9._-]+)/ns/([a-zA-Z0-9._-]+)/sa/([a-zA-Z0-9._-]+)")

Given = tuple[Signer, tuple[x509.Certificate, ...]]


class CertificateAuthority:
    """Signs by the state that the store has. ``listeners`` are called when that changes.

    ``given`` is an operator's own signer with the roots that are trusted for it (see `plugged`): its certificates are told to
    the store, its key is not, and it signs here whatever the store says.
    """

    def __init__(self, store: Store, sealing: Sealing, given: Given | None) -> None:
        self._store = store
        self._sealing = sealing
        self._given = given
        self.horizons = Horizons(store)
        self.listeners: list[Callable[[], None]] = []
        self.state: AuthorityState

    @classmethod
    async def open(
        cls,
        store: Store,
        *,
        trust_domain: str = "cluster.local",
        key_type: str = "ecdsa",
        sealing: Sealing | None = None,
        given: Given | None = None,
    ) -> CertificateAuthority:
        """The authority that the store has, or a new one with a root of ``key_type`` ("ecdsa", "rsa"); of several control
        planes that start at once, one makes it. Raises CannotUnseal.
        """
        authority = cls(store, sealing or Sealing(), given)
        stored = await store.get(ROOT_KEY)
        if stored is None:
            signer, roots = given or (await asyncio.to_thread(new_root, trust_domain, key_type), ())
            state = with_roots(AuthorityState(trust_domain, (signer,), signer.id, (signer.root,)), roots)
            document = await asyncio.to_thread(authority._document, state)
            try:
                stored = await store.put(ROOT_KEY, document, expected=0, who="citadel")
            except Conflict:
                stored = await store.get(ROOT_KEY)
        if stored is None:
            raise RuntimeError("the certificate authority was removed from the store while it was made")
        authority.state = await authority._parse(stored)
        if given is not None:
            signer, roots = given
            await authority.change(lambda state: with_roots(_with_given(state, signer), roots), who="citadel")
        if authority._sealing.active and authority._is_open(stored):
            # The same again, sealed: with no version it differs from what is there.
            await authority.change(lambda state: replace(state, version=0), who="citadel")
        authority.state = authority._own(authority.state)
        return authority

    # what it is

    @property
    def is_given(self) -> bool:
        """Whether an operator's own signer is used."""
        return self._given is not None

    @property
    def trust_domain(self) -> str:
        """Of all identities, for good: it is decided when the authority is made."""
        return self.state.trust_domain

    @property
    def certificate(self) -> x509.Certificate:
        """The root above the active signer, which is the signer itself if the root is our own."""
        return self.state.signer.root

    @property
    def root(self) -> bytes:
        """PEM of that."""
        return pem(self.certificate)

    @property
    def pem(self) -> bytes:
        """All trusted roots, PEM."""
        return b"".join(map(pem, self.state.roots))

    @property
    def known_roots(self) -> bytes:
        """Those, and the roots that were trusted once, from which there is a way to the one that signs."""
        return self.pem + b"".join(map(pem, reversed(self.state.retired)))

    @property
    def hash(self) -> str:
        """SHA-256 of the root's public key (SubjectPublicKeyInfo, hexadecimal): join tokens carry it, so that a machine that
        knows nothing else can tell the right control plane from another.
        """
        return public_key_hash(self.certificate)

    def issuers(self) -> Sequence[IssuerCertificate]:
        """The active signer's certificates, then all other trusted roots."""
        chain = self.state.signer.certificates
        others = [root for root in self.state.roots if root != chain[-1]]
        return [
            IssuerCertificate(
                role="root" if certificate.issuer == certificate.subject else "intermediate",
                subject=certificate.subject.rfc4514_string(),
                serial=f"{certificate.serial_number:x}",
                key=_key_words(certificate),
                signing=certificate == chain[0],
                not_before=certificate.not_valid_before_utc.timestamp(),
                not_after=certificate.not_valid_after_utc.timestamp(),
            )
            for certificate in (*chain, *others)
        ]

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether a signer whose root is trusted has signed this."""
        for signer in self.state.signers:
            if signer.root in self.state.roots and signer.issuer.subject == certificate.issuer:
                try:
                    certificate.verify_directly_issued_by(signer.issuer)
                except Exception:  # another signer of the same name, or a broken certificate
                    continue
                return True
        return False

    # changing it

    async def change(self, edit: Callable[[AuthorityState], AuthorityState], *, who: str) -> None:
        """Have another state, decided on the newest one that the store has; listeners hear of it. Raises what ``edit``
        raises, and nothing is changed then.
        """
        while True:
            stored = await self._store.get(ROOT_KEY)
            if stored is None:
                raise RuntimeError("the certificate authority was removed from the store")
            before = await self._parse(stored)
            after = edit(self._own(before))
            if after == before:
                return
            document = await asyncio.to_thread(self._document, after)
            try:
                self._take(
                    await self._parse(await self._store.put(ROOT_KEY, document, expected=stored.revision, who=who))
                )
                return
            except Conflict:
                continue

    async def cover(self, lifetime: float) -> None:
        """Before something is signed that lives for so many seconds: the store knows it, and who signs now is known here.
        Raises Unavailable.
        """
        while True:
            signer = self.state.signer
            ends = min(time.time() + lifetime, signer.ends.timestamp())
            if self.horizons.covers(signer.id, ends):
                return
            await self.horizons.extend(signer.id, ends, lifetime)
            # Nobody retires a signer that the store says has signed; but it may have been done before that was said.
            await self.reload()
            if self.state.signer.id == signer.id:
                return

    async def reload(self) -> None:
        """Take over what another control plane has changed. Raises CannotUnseal."""
        stored = await self._store.get(ROOT_KEY)
        if stored is not None and stored.revision != self.state.version:
            self._take(await self._parse(stored))

    def _take(self, state: AuthorityState) -> None:
        self.state = self._own(state)
        for listener in self.listeners:
            listener()

    def _own(self, state: AuthorityState) -> AuthorityState:
        """The state as this control plane goes by it: with the key that only it was given."""
        given = self._given
        if given is not None:
            signer = given[0]
            state = replace(state, signers=tuple(signer if one.id == signer.id else one for one in state.signers))
            if state.signer.key is None:  # of another directory, that is not there any more
                state = with_signer(state, signer)
        if state.signer.key is None:
            raise CannotIssue(
                "the store's certificate authority signs with an intermediate whose key is not in the store: give its "
                "directory by --ca-directory"
            )
        return state

    # in the store

    def _document(self, state: AuthorityState) -> bytes:
        given = None if self._given is None else self._given[0].id
        return json.dumps(
            {
                "trustDomain": state.trust_domain,
                "signers": [
                    {
                        "certificates": signer.chain.decode(),
                        "key": None
                        if signer.key is None or signer.id == given
                        else self._sealing.seal(key_pem(signer.key).decode(), _PURPOSE),
                    }
                    for signer in state.signers
                ],
                "active": state.active,
                "roots": [pem(root).decode() for root in state.roots],
                "crl": state.crl,
                "retired": [pem(root).decode() for root in state.retired],
                "crosses": [pem(cross).decode() for cross in state.crosses],
                **ledger_document(state),
            }
        ).encode()

    async def _parse(self, stored: Stored) -> AuthorityState:
        document = json.loads(stored.document)
        if "signers" not in document:  # as it was when an authority had one root and nothing else
            root = document["certificate"]
            document |= {"signers": [{"certificates": root, "key": document["key"]}], "roots": [root], "crl": ""}
        signers = []
        for entry in document["signers"]:
            kept = entry["key"]
            text = None if kept is None else await asyncio.to_thread(self._sealing.open, kept, _PURPOSE)
            signers.append(
                Signer(
                    tuple(x509.load_pem_x509_certificates(entry["certificates"].encode())),
                    None if text is None else load_key(text.encode()),
                )
            )
        return AuthorityState(
            trust_domain=document["trustDomain"],
            signers=tuple(signers),
            active=document.get("active", signers[-1].id),
            roots=_certificates(document["roots"]),
            crl=document["crl"],
            version=stored.revision,
            retired=_certificates(document.get("retired", ())),
            crosses=_certificates(document.get("crosses", ())),
            **ledger_fields(document),
        )

    @staticmethod
    def _is_open(stored: Stored) -> bool:
        document = json.loads(stored.document)
        return any(isinstance(entry["key"], str) for entry in document.get("signers", [document]))

    # signing

    def judge_identity(self, identity: str) -> None:
        """Raises NotAllowed for one that is revoked."""
        if identity in self.state.banned_identities:
            raise NotAllowed(
                f"{identity} is revoked: an admin may restore it: mizzen certs restore --identity {identity}"
            )

    def denial(self, serial: str, identity: str) -> str:
        """Why a certificate is not believed though it is ours, empty if it is."""
        if serial in self.state.revoked_serials:
            return f"the client certificate {serial} is revoked"
        return f"{identity} is revoked" if identity in self.state.banned_identities else ""

    def server_certificate(self, names: Sequence[str], lifetime: datetime.timedelta) -> tuple[bytes, bytes]:
        """A certificate for a server by these DNS names and addresses: its chain and a new key, both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        certificate = self._sign(key.public_key(), "mizzen control plane", alternatives, False, lifetime, server=True)
        return pem(certificate) + self._server_chain(), key_pem(key)

    def _server_chain(self) -> bytes:
        """What follows a server's certificate: for those who know but an older root, the way to it instead of the root."""
        chain, way = self.state.signer.certificates, []
        subject = chain[-1].subject
        while (cross := next((one for one in self.state.crosses if one.subject == subject), None)) and cross not in way:
            way.append(cross)
            subject = cross.issuer
        return b"".join(map(pem, (*chain[:-1], *way) if way else chain))

    def identity(self, namespace: str, service_account: str) -> str:
        """The SPIFFE ID of a service account, in Istio's form."""
        return f"spiffe://{self.trust_domain}/ns/{namespace}/sa/{service_account}"

    def sign_workload(
        self, request: bytes, namespace: str, service_account: str, lifetime: datetime.timedelta
    ) -> tuple[bytes, x509.Certificate]:
        """A workload's certificate for the key of a signing request (PEM): its chain, PEM, and the certificate itself.

        Raises InvalidRequest and NotAllowed for a bad request (see `judged_key`), and CannotIssue.
        """
        identity = self.identity(namespace, service_account)
        if len(identity) > 2048:
            raise InvalidRequest("serviceAccount", "makes a SPIFFE ID of more than 2048 bytes")
        key = judged_key(request, identity)
        # The subject is empty, so the alternative name is critical (X509-SVID section 2, RFC 5280 section 4.2.1.6).
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
        certificate = self._sign(key, None, names, True, lifetime)
        return pem(certificate) + self.state.signer.chain, certificate

    def _sign(
        self,
        key: CertifiedKey,
        common_name: str | None,
        alternatives: x509.SubjectAlternativeName,
        critical: bool,
        lifetime: datetime.timedelta,
        server: bool = False,
    ) -> x509.Certificate:
        signer = self.state.signer
        assert signer.key is not None
        now = datetime.datetime.now(datetime.UTC)
        if signer.ends <= now:
            ended = f"{signer.ends:%Y-%m-%d %H:%M}"
            raise CannotIssue(f"the certificate authority's own certificate has expired on {ended} UTC")
        usages = [ExtendedKeyUsageOID.SERVER_AUTH]
        if not server:
            usages.append(ExtendedKeyUsageOID.CLIENT_AUTH)
        subject = [] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(signer.issuer.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(min(now + lifetime, signer.ends))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(alternatives, critical=critical)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(signer.key_identifier, critical=False)
            .sign(signer.key, signature_hash(signer.key))
        )


def account_of(identity: str, trust_domain: str) -> tuple[str, str] | None:
    """Namespace and service account of a SPIFFE ID in Istio's form, None for any other."""
    found = _IDENTITY.fullmatch(identity)
    if found is None or found.group(1) != trust_domain:
        return None
    try:
        judge_account(found.group(2), found.group(3))
    except InvalidRequest:
        return None
    return found.group(2), found.group(3)


def _with_given(state: AuthorityState, signer: Signer) -> AuthorityState:
    """With an operator's own signer. If the mesh does not trust its root yet it is told of that first, and signs later (see
    `rotation`); whoever has signed until now goes on, if the key is here. Raises CannotIssue.
    """
    known = signer.id in (one.id for one in state.signers)
    if (known and state.rotation is not None) or state.active == signer.id:
        return state
    if signer.root in state.roots or state.signer.key is None:
        return with_signer(state, signer)
    try:
        return begin(state, signer, now=time.time(), who="--ca-directory", timeout=None)
    except NotNow as error:
        raise CannotIssue(f"--ca-directory has another authority than the one that comes: {error}") from None


def _certificates(texts: Sequence[str]) -> tuple[x509.Certificate, ...]:
    return tuple(x509.load_pem_x509_certificate(text.encode()) for text in texts)


def _key_words(certificate: x509.Certificate) -> str:
    key: Any = certificate.public_key()
    return f"ECDSA {key.curve.name}" if isinstance(key, ec.EllipticCurvePublicKey) else f"RSA {key.key_size}"


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
