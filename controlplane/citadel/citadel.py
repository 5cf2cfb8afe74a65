"""The parts of Citadel, put together on a store and a data directory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controlplane.citadel.audit import AuditLog
from controlplane.citadel.authentication import Credentials
from controlplane.citadel.authority import CertificateAuthority
from controlplane.citadel.bundles import TrustBundles
from controlplane.citadel.expiry import Expiry
from controlplane.citadel.figures import Figures
from controlplane.citadel.issued import TAIL, IssuedCertificates
from controlplane.citadel.issuing import DEFAULT_LIFETIMES, Issuance, Lifetimes
from controlplane.citadel.jwt_keys import JwtKeys
from controlplane.citadel.operations import Operations
from controlplane.citadel.plugged import read_authority
from controlplane.citadel.rotating import Rotations
from controlplane.citadel.sealing import Sealing
from controlplane.citadel.token_review import Cluster, TokenReviews
from controlplane.citadel.tokens import Tokens
from controlplane.model.credentials import Identity, Means
from controlplane.model.store import Store

_LONG: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Citadel:
    """Who is who, and what they get."""

    authority: CertificateAuthority
    tokens: Tokens
    credentials: Credentials
    jwt_keys: JwtKeys
    bundles: TrustBundles
    audit: AuditLog
    issuance: Issuance
    rotations: Rotations
    operations: Operations
    expiry: Expiry
    figures: Figures
    token_reviews: TokenReviews | None = None

    @classmethod
    async def open(
        cls,
        store: Store,
        data_dir: Path,
        *,
        trust_domain: str = "cluster.local",
        key_type: str = "ecdsa",
        passphrase: str = "",
        ca_directory: Path | None = None,
        cluster: Cluster | None = None,
        lifetimes: Lifetimes = DEFAULT_LIFETIMES,
    ) -> Citadel:
        """From what the store and the audit log have, or anew; with ``ca_directory`` the authority is the operator's own (see
        `plugged`), with ``cluster`` tokens of Kubernetes are believed. Raises OSError, InvalidAuthority, CannotUnseal,
        CannotIssue.
        """
        sealing = Sealing(passphrase)
        given = None if ca_directory is None else read_authority(ca_directory, passphrase, trust_domain)
        authority = await CertificateAuthority.open(
            store, trust_domain=trust_domain, key_type=key_type, sealing=sealing, given=given
        )
        tokens = Tokens(store, authority)
        jwt_keys = await JwtKeys.open(store, sealing)
        bundles = TrustBundles(store, authority, jwt_keys)
        audit = AuditLog(data_dir / "audit.jsonl")
        known = IssuedCertificates()
        await asyncio.to_thread(lambda: known.recall(audit.lines(TAIL)))
        issuance = Issuance(authority, tokens, jwt_keys, bundles, audit, known, lifetimes)
        token_reviews = None if cluster is None else TokenReviews(cluster)
        credentials = Credentials(tokens, authority, token_reviews)
        rotations = Rotations(store, authority, bundles, known, audit)
        operations = Operations(authority, rotations, known, audit)
        expiry = Expiry(authority, known, rotations)
        operations.warnings = expiry.warnings
        return cls(
            authority,
            tokens,
            credentials,
            jwt_keys,
            bundles,
            audit,
            issuance,
            rotations,
            operations,
            expiry,
            Figures(authority, audit, expiry),
            token_reviews,
        )

    async def denied(self, workload: Identity) -> str:
        """Wait until a workload that was believed is revoked, or the certificate by which it was; why it is refused now."""
        identity = self.authority.identity(workload.namespace, workload.service_account)
        serial = workload.credential if workload.means is Means.CERTIFICATE else ""
        while True:
            version = self.bundles.current.version
            if reason := self.authority.denial(serial, identity):
                return reason
            await self.bundles.changed(version, _LONG)
            if self.bundles.is_closed:  # the end, at which nobody waits for anything
                await asyncio.Event().wait()

    async def close(self) -> None:
        """After what is being written."""
        if self.token_reviews is not None:
            await self.token_reviews.close()
        await self.audit.close()
