"""One root comes for another, and no connection breaks.

Gate 1: the new root is told to everybody, and signs only when all have confirmed that they trust it. Gate 2: it signs, and
whose certificate is of the old one renews. Gate 3: the old root leaves when the last certificate under it has ended.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from cryptography import x509

from controlplane.citadel.authority_state import AuthorityState, Phase, Rotation, with_signer
from controlplane.citadel.revocation import relisted
from controlplane.citadel.signers import SKEW, Signer, key_usage, signature_hash
from controlplane.model.authority_operations import NotNow

RECENT: Final = 180.0  # seconds since its last question after which an agent without a certificate of ours is gone
_MOST_CROSSES: Final = 2  # each is sent with every handshake of the control plane
_RENEWALS_A_SECOND: Final = 50.0
_LEAST_SPREAD: Final = 2.0
_LONGEST_SPREAD: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody at an address who has certificates of an identity, the last of which ends at ``until`` (0 if it is not known).
    ``version`` of the trust bundle was confirmed last (0: none), ``asked`` is when.
    """

    identity: str
    host: str
    version: int
    asked: float
    until: float

    def merged(self, other: Holder) -> Holder:
        """With what another control plane knows of the same."""
        return replace(
            self,
            version=max(self.version, other.version),
            asked=max(self.asked, other.asked),
            until=max(self.until, other.until),
        )

    def counts(self, now: float) -> bool:
        """Whether somebody may be there."""
        return max(self.until, self.asked + RECENT) > now


def unconfirmed(state: AuthorityState, holders: Iterable[Holder], now: float, since: int | None = None) -> list[Holder]:
    """Those for whom gate 1 waits, those whose certificates end first at the beginning."""
    wanted = state.rotation.since if state.rotation is not None and since is None else since
    assert wanted is not None
    found = [
        one
        for one in holders
        if one.version < wanted and one.counts(now) and one.identity not in state.banned_identities
    ]
    return sorted(found, key=lambda one: (one.until, one.identity, one.host))


def begin(state: AuthorityState, signer: Signer, *, now: float, who: str, timeout: float | None) -> AuthorityState:
    """The state in which everybody is told of a new root. Raises NotNow."""
    if state.rotation is not None:
        raise NotNow(
            "a rotation is under way: see mizzen ca status"
            + ("; mizzen ca abort ends it" if state.rotation.phase is Phase.DISTRIBUTING else "")
        )
    deadline = None if timeout is None else now + timeout
    rotation = Rotation(signer.id, Phase.DISTRIBUTING, now, who, deadline=deadline)
    signers = (*(one for one in state.signers if one.id != signer.id), signer)
    roots = (*state.roots, signer.root)
    return relisted(replace(state, rotation=rotation, signers=signers, roots=roots), now)


def counted(state: AuthorityState) -> AuthorityState:
    """The state that says which version of the trust bundle has the new root: the one that there is already."""
    assert state.rotation is not None
    return replace(state, rotation=replace(state.rotation, since=state.version))


def switch(state: AuthorityState, holders: int, *, now: float) -> AuthorityState:
    """The state in which the new root signs. ``holders`` is how many will renew. Raises NotNow."""
    rotation = _at(state, Phase.DISTRIBUTING)
    incoming = state.signer_of(rotation.incoming)
    if incoming.key is None:
        raise NotNow(
            "the new signer's key is not known here: give its directory (--ca-directory) to every control plane"
        )
    crosses = state.crosses
    outgoing = state.signer
    if outgoing.key is not None and len(outgoing.certificates) == len(incoming.certificates) == 1:
        crosses = (*crosses, _cross(incoming, outgoing))[-_MOST_CROSSES:]
    spread = min(_LONGEST_SPREAD, max(_LEAST_SPREAD, holders / _RENEWALS_A_SECOND))
    moving = replace(rotation, phase=Phase.MOVING, switched=now, renew_within=spread)
    return replace(with_signer(state, incoming), rotation=moving, crosses=crosses)


def last_end(state: AuthorityState, horizons: Mapping[str, float]) -> float:
    """When the last certificate ends that is not of the new root."""
    assert state.rotation is not None
    return max((horizons.get(one.id, 0.0) for one in state.signers if one.id != state.rotation.incoming), default=0.0)


def retire(state: AuthorityState, *, now: float) -> AuthorityState:
    """The state in which the new root alone is trusted. Raises NotNow."""
    rotation = _at(state, Phase.MOVING)
    incoming = state.signer_of(rotation.incoming)
    gone = {one.root for one in state.signers} - {incoming.root}
    # Only roots that were ours: an operator's other roots (root-cert.pem) are theirs to take away.
    kept = tuple(root for root in state.roots if root not in gone)
    linked = {cross.issuer for cross in state.crosses}
    retired = tuple(root for root in (*state.retired, *state.roots) if root not in kept and root.subject in linked)
    signers = tuple(one for one in state.signers if one.root == incoming.root)
    return relisted(
        replace(state, rotation=None, signers=signers, roots=kept, retired=tuple(dict.fromkeys(retired))), now
    )


def abort(state: AuthorityState, *, now: float) -> AuthorityState:
    """The state without the new root. Raises NotNow when that has signed."""
    if state.rotation is not None and state.rotation.phase is Phase.MOVING:
        raise NotNow(
            "the new root signs already: certificates under it are in use. Let the rotation end, then rotate again"
        )
    rotation = _at(state, Phase.DISTRIBUTING)
    incoming = state.signer_of(rotation.incoming)
    return relisted(
        replace(
            state,
            rotation=None,
            signers=tuple(one for one in state.signers if one.id != incoming.id),
            roots=tuple(root for root in state.roots if root != incoming.root),
        ),
        now,
    )


def _at(state: AuthorityState, phase: Phase) -> Rotation:
    if state.rotation is None:
        raise NotNow("no rotation is under way: mizzen ca rotate begins one")
    if state.rotation.phase is not phase:
        raise NotNow(f"the rotation is {state.rotation.phase}, not {phase}")
    return state.rotation


def _cross(newer: Signer, older: Signer) -> x509.Certificate:
    """The newer root's name and key, signed by the older."""
    assert older.key is not None
    identifier = newer.root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    begins = max(newer.root.not_valid_before_utc, datetime.datetime.now(datetime.UTC) - SKEW)
    return (
        x509.CertificateBuilder()
        .subject_name(newer.root.subject)
        .issuer_name(older.issuer.subject)
        .public_key(newer.root.public_key())  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(min(newer.ends, older.ends))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(older.key_identifier, critical=False)
        .sign(older.key, signature_hash(older.key))
    )
