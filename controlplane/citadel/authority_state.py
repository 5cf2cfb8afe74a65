"""What an authority is at one revision of the store: who signs, who is trusted, what is revoked, which rotation is under way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from cryptography import x509

from controlplane.citadel.signers import Signer

MOST_REVOKED: Final = 4000  # all of an authority is one document in the store


class Phase(StrEnum):
    """Where a rotation is: the new root is told to everybody, or it signs and the old one is still trusted."""

    DISTRIBUTING = "distributing"
    MOVING = "moving"


@dataclass(frozen=True, slots=True)
class Rotation:
    """One root comes for another. ``incoming`` is the new signer's id, ``by`` who asked for it, times are in seconds since the
    epoch. ``since`` is the version of the trust bundle that must be confirmed, 0 until it is known; ``deadline`` is when an
    operator wants to go on without those who have not confirmed, None for never. Those whose certificates are of another
    signer renew within ``renew_within`` seconds once it signs, at ``switched``.
    """

    incoming: str
    phase: Phase
    started: float
    by: str
    since: int = 0
    deadline: float | None = None
    switched: float = 0.0
    renew_within: float = 0.0


@dataclass(frozen=True, slots=True)
class Revocation:
    """One certificate is not believed any more. ``serial`` is hexadecimal, ``identity`` is empty if it is not known, ``until``
    when the certificate ends, and this with it; ``reason`` is one of RFC 5280, section 5.3.1.
    """

    serial: str
    identity: str
    reason: str
    at: float
    by: str
    until: float


@dataclass(frozen=True, slots=True)
class Ban:
    """An identity gets no certificates, and none of it is believed, until somebody lifts this."""

    identity: str
    reason: str
    at: float
    by: str


@dataclass(frozen=True)
class AuthorityState:
    """What an authority is at one revision of the store.

    ``signers`` are all whose certificates are believed, in the order in which they came; the one with the id ``active``
    signs. ``roots`` are trusted by everybody: that of the active one first, then those that are on their way in or out.
    ``crl`` is a certificate revocation list of each signer in PEM, empty for none. ``version`` is the revision.
    ``retired`` are roots that were trusted once, the newest last, and ``crosses`` are certificates by which whoever knows only
    an older root finds the way to a newer one: of each newer root's key, signed by the older.
    """

    trust_domain: str
    signers: tuple[Signer, ...]
    active: str
    roots: tuple[x509.Certificate, ...]
    crl: str = ""
    version: int = 0
    rotation: Rotation | None = None
    revoked: tuple[Revocation, ...] = ()
    banned: tuple[Ban, ...] = ()
    retired: tuple[x509.Certificate, ...] = ()
    crosses: tuple[x509.Certificate, ...] = ()

    @cached_property
    def signer(self) -> Signer:
        """The active one."""
        return self.signer_of(self.active)

    @cached_property
    def revoked_serials(self) -> frozenset[str]:
        """Of all that is revoked."""
        return frozenset(one.serial for one in self.revoked)

    @cached_property
    def banned_identities(self) -> frozenset[str]:
        """Who gets nothing."""
        return frozenset(one.identity for one in self.banned)

    def signer_of(self, id: str) -> Signer:
        """The signer with this id."""
        return next(signer for signer in self.signers if signer.id == id)


def with_signer(state: AuthorityState, signer: Signer) -> AuthorityState:
    """The state with this signer as the active one; the roots that were trusted still are."""
    signers = state.signers if signer.id in (one.id for one in state.signers) else (*state.signers, signer)
    roots = (signer.root, *(root for root in state.roots if root != signer.root))
    return replace(state, signers=signers, active=signer.id, roots=roots)


def with_roots(state: AuthorityState, roots: Sequence[x509.Certificate]) -> AuthorityState:
    """The state with further roots that are trusted, after the others."""
    return replace(state, roots=(*state.roots, *(root for root in roots if root not in state.roots)))


def ledger_document(state: AuthorityState) -> dict[str, Any]:
    """What the store keeps beside keys and certificates, as JSON has it."""
    return {
        "rotation": None if state.rotation is None else asdict(state.rotation),
        "revoked": [asdict(one) for one in state.revoked],
        "banned": [asdict(one) for one in state.banned],
    }


def ledger_fields(document: Mapping[str, Any]) -> dict[str, Any]:
    """The same, as fields of an AuthorityState."""
    rotation = document.get("rotation")
    if rotation is not None:
        rotation = Rotation(**{**rotation, "phase": Phase(rotation["phase"])})
    return {
        "rotation": rotation,
        "revoked": tuple(Revocation(**one) for one in document.get("revoked", ())),
        "banned": tuple(Ban(**one) for one in document.get("banned", ())),
    }
