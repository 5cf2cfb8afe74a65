"""Revocation: the deny list, and the lists (RFC 5280, section 5) by which proxies know of it.

Every signer whose root is trusted has a list of its own, or none has: whoever verifies with a list wants one of each issuer.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from controlplane.citadel.authority_state import MOST_REVOKED, AuthorityState, Ban, Revocation
from controlplane.citadel.signers import SKEW, Signer, signature_hash
from controlplane.model.certificates import InvalidRequest

HOLD: Final = "certificateHold"
REASONS: Final = (
    "unspecified",
    "keyCompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    HOLD,
    "privilegeWithdrawn",
)


def with_revoked(state: AuthorityState, found: Sequence[Revocation], now: float) -> AuthorityState:
    """The state in which these certificates are not believed. Raises InvalidRequest if there are too many."""
    fresh = [one for one in found if one.serial not in state.revoked_serials and one.until > now]
    kept = tuple(one for one in state.revoked if one.until > now)
    if len(kept) + len(fresh) > MOST_REVOKED:
        raise InvalidRequest(
            "serial",
            f"the deny list has room for {MOST_REVOKED} certificates: rotate the root (mizzen ca rotate) instead",
        )
    return _listed(replace(state, revoked=(*kept, *fresh)), state, now)


def without_revoked(state: AuthorityState, serial: str, now: float) -> AuthorityState:
    """The state in which a certificate that was held is believed again. Raises InvalidRequest for any other: what is revoked
    for good stays so (RFC 5280, section 5.3.1).
    """
    found = next((one for one in state.revoked if one.serial == serial), None)
    if found is None:
        raise InvalidRequest("serial", f"{serial} is not revoked")
    if found.reason != HOLD:
        raise InvalidRequest(
            "serial", f"{serial} is revoked for good ({found.reason}): only what was revoked with {HOLD} comes back. "
            "The workload joins again by a new token",
        )  # fmt: skip
    return _listed(replace(state, revoked=tuple(one for one in state.revoked if one is not found)), state, now)


def with_ban(state: AuthorityState, ban: Ban) -> AuthorityState:
    """The state in which an identity gets no certificates."""
    return state if ban.identity in state.banned_identities else replace(state, banned=(*state.banned, ban))


def without_ban(state: AuthorityState, identity: str) -> AuthorityState:
    """The state in which it gets some again; what was revoked stays revoked. Raises InvalidRequest."""
    if identity not in state.banned_identities:
        raise InvalidRequest("identity", f"{identity} is not revoked")
    return replace(state, banned=tuple(one for one in state.banned if one.identity != identity))


def pruned(state: AuthorityState, now: float) -> AuthorityState:
    """The state without what has expired."""
    if all(one.until > now for one in state.revoked):
        return state
    return _listed(replace(state, revoked=tuple(one for one in state.revoked if one.until > now)), state, now)


def relisted(state: AuthorityState, now: float) -> AuthorityState:
    """The state with lists of the signers that it has."""
    return _listed(state, None, now)


def cannot_list(state: AuthorityState) -> str:
    """Why no lists can be given to proxies, empty if they can."""
    ours = {signer.root for signer in _listing(state)}
    for root in state.roots:
        if root not in ours:
            return f"a trusted root, {root.subject.rfc4514_string()}, has no signer here that could sign a list"
    for signer in _listing(state):
        if signer.key is None:
            return f"the key of {signer.issuer.subject.rfc4514_string()} is not here any more, so it signs no list"
        usage = signer.issuer.extensions.get_extension_for_class(x509.KeyUsage).value
        if not usage.crl_sign:
            return f"{signer.issuer.subject.rfc4514_string()} may not sign lists: its key usage lacks cRLSign"
    return ""


def _listing(state: AuthorityState) -> list[Signer]:
    return [signer for signer in state.signers if signer.root in state.roots]


def _listed(state: AuthorityState, before: AuthorityState | None, now: float) -> AuthorityState:
    if before is not None and before.revoked == state.revoked:
        return state
    if not state.revoked or cannot_list(state):
        return replace(state, crl="")
    return replace(state, crl="".join(_list(signer, state.revoked, state.version, now) for signer in _listing(state)))


def _list(signer: Signer, revoked: Sequence[Revocation], version: int, now: float) -> str:
    assert signer.key is not None
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.issuer.subject)
        # Clocks differ; and a list that ended would turn everybody away: it is replaced when it changes, not by its age.
        .last_update(at - SKEW)
        .next_update(max(signer.ends, at + SKEW))
        .add_extension(signer.key_identifier, critical=False)
        .add_extension(x509.CRLNumber(version + 1), critical=False)
    )
    for one in revoked:
        entry = (
            x509.RevokedCertificateBuilder()
            .serial_number(int(one.serial, 16))
            .revocation_date(datetime.datetime.fromtimestamp(one.at, datetime.UTC))
        )
        if one.reason != "unspecified":  # which is said by saying nothing
            entry = entry.add_extension(x509.CRLReason(_FLAGS[one.reason]), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    made = builder.sign(signer.key, signature_hash(signer.key))
    return made.public_bytes(serialization.Encoding.PEM).decode()


_FLAGS: Final = {
    "keyCompromise": x509.ReasonFlags.key_compromise,
    "affiliationChanged": x509.ReasonFlags.affiliation_changed,
    "superseded": x509.ReasonFlags.superseded,
    "cessationOfOperation": x509.ReasonFlags.cessation_of_operation,
    HOLD: x509.ReasonFlags.certificate_hold,
    "privilegeWithdrawn": x509.ReasonFlags.privilege_withdrawn,
}
