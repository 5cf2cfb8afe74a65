"""What operators do with the authority: see AuthorityOperations. Each act is in the audit log."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from cryptography import x509

from controlplane.citadel.audit import AuditLog
from controlplane.citadel.authority import CertificateAuthority, account_of
from controlplane.citadel.authority_state import AuthorityState, Ban, Phase, Revocation
from controlplane.citadel.issued import IssuedCertificates
from controlplane.citadel.revocation import (
    REASONS,
    cannot_list,
    with_ban,
    with_revoked,
    without_ban,
    without_revoked,
)
from controlplane.citadel.rotating import Rotations
from controlplane.citadel.rotation import abort, begin, unconfirmed
from controlplane.citadel.signers import KEY_TYPES, new_root
from controlplane.model.authority_operations import NotNow
from controlplane.model.certificates import CannotIssue, InvalidRequest

_SHOWN: Final = 1000
_SERIAL: Final = re.compile(r"[0-9a-f]{1,40}")


class Operations:
    """The control plane's AuthorityOperations (see the protocol)."""

    def __init__(
        self,
        authority: CertificateAuthority,
        rotations: Rotations,
        known: IssuedCertificates,
        audit: AuditLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authority = authority
        self._rotations = rotations
        self._known = known
        self._audit = audit
        self._clock = clock
        self._changed = asyncio.Event()
        authority.listeners.append(self._changed.set)
        self.warnings: Callable[[], list[str]] = list

    # rotation

    async def status(self) -> Mapping[str, Any]:
        """See AuthorityOperations."""
        state = self._authority.state
        return {
            "trustDomain": state.trust_domain,
            "version": state.version,
            "rotation": await self._progress(state),
            "retired": [_root(root) for root in state.retired],
            "revokedCertificates": len(state.revoked),
            "revokedIdentities": len(state.banned),
            "warnings": self.warnings(),
        }

    async def rotate(self, *, key_type: str, timeout: float | None, who: str) -> None:
        """See AuthorityOperations."""
        if key_type not in KEY_TYPES:
            raise InvalidRequest("keyType", f"must be {' or '.join(KEY_TYPES)}, not {key_type!r}")
        if self._authority.is_given:
            raise NotNow(
                "this mesh signs under an authority of yours: to rotate it, start every control plane with the directory of "
                "the new one (--ca-directory)"
            )
        signer = await asyncio.to_thread(new_root, self._authority.trust_domain, key_type, named=True)
        now = self._clock()
        await self._authority.change(lambda state: begin(state, signer, now=now, who=who, timeout=timeout), who=who)
        await self._write("root-distributed", who, serial=f"{signer.root.serial_number:x}", timeout=timeout)

    async def advance(self, *, gate: int, who: str) -> None:
        """See AuthorityOperations."""
        rotation = self._authority.state.rotation
        if rotation is None:
            raise NotNow("no rotation is under way: mizzen ca rotate begins one")
        at = (1,) if rotation.phase is Phase.DISTRIBUTING else (2, 3)
        if gate not in at:
            raise NotNow(
                f"the rotation is at gate {' or '.join(map(str, at))}, not {gate}: look again (mizzen ca status)"
            )
        why = await self._rotations.force(who=who)
        await self._write("rotation-forced", who, gate=gate, reason=why)

    async def abort(self, *, who: str) -> None:
        """See AuthorityOperations."""
        now = self._clock()
        await self._authority.change(lambda state: abort(state, now=now), who=who)
        await self._write("rotation-aborted", who)

    async def _progress(self, state: AuthorityState) -> Mapping[str, Any] | None:
        rotation = state.rotation
        if rotation is None:
            return None
        incoming = state.signer_of(rotation.incoming)
        found: dict[str, Any] = {
            "phase": rotation.phase,
            "startedAt": rotation.started,
            "by": rotation.by,
            "incoming": _root(incoming.root),
            "outgoing": [_root(one.root) for one in state.signers if one.id != rotation.incoming],
        }
        if rotation.phase is Phase.DISTRIBUTING:
            holders, silent = await self._rotations.holders()
            now = self._clock()
            # Until the version is known none has confirmed it.
            waiting = unconfirmed(state, holders, now, rotation.since or state.version + 1)
            return found | {
                "gate": 1,
                "deadline": rotation.deadline,
                "known": len([one for one in holders if one.counts(now)]),
                "unconfirmed": len(waiting),
                "waitingFor": [
                    {
                        "identity": one.identity,
                        "host": one.host,
                        "askedAt": one.asked or None,
                        "certificateEnds": one.until or None,
                    }
                    for one in waiting[:_SHOWN]
                ],
                "waitingForControlPlanes": silent,
            }
        behind = self._rotations.not_moved()
        return found | {
            "gate": 2 if behind else 3,
            "switchedAt": rotation.switched,
            "renewWithin": rotation.renew_within,
            "notMoved": len(behind),
            "waitingFor": [
                {"identity": identity, "host": host, "certificateEnds": ends}
                for identity, host, ends in behind[:_SHOWN]
            ],
            "lastCertificateEnds": await self._rotations.last_end(),
        }

    # revocation

    def denied(self) -> Mapping[str, Any]:
        """See AuthorityOperations."""
        state = self._authority.state
        return {
            "certificates": [asdict(one) for one in state.revoked],
            "identities": [asdict(one) for one in state.banned],
            "listProblem": cannot_list(state),
        }

    async def revoke(self, *, serial: str, identity: str, reason: str, who: str) -> Mapping[str, Any]:
        """See AuthorityOperations."""
        if reason not in REASONS:
            raise InvalidRequest("reason", f"must be one of {', '.join(REASONS)}")
        now = self._clock()
        if identity:
            if reason == "certificateHold":
                raise InvalidRequest("reason", "a certificate can be held; an identity is revoked until it is restored")
            if account_of(identity, self._authority.trust_domain) is None:
                domain = self._authority.trust_domain
                raise InvalidRequest("identity", f"must be spiffe://{domain}/ns/NAMESPACE/sa/ACCOUNT, not {identity!r}")
            ban = Ban(identity, reason, now, who)
            found = self._certificates_of(ban)
            await self._authority.change(lambda state: with_ban(with_revoked(state, found, now), ban), who=who)
        else:
            found = [await self._certificate(serial.lower().replace(":", "").lstrip("0"), reason, who)]
            await self._authority.change(lambda state: with_revoked(state, found, now), who=who)
        await self._write("revoked", who, identity=identity, serials=[one.serial for one in found], reason=reason)
        return {"certificates": [asdict(one) for one in found], "listProblem": cannot_list(self._authority.state)}

    async def restore(self, *, serial: str, identity: str, who: str) -> None:
        """See AuthorityOperations."""
        now = self._clock()
        serial = serial.lower().replace(":", "").lstrip("0")
        await self._authority.change(
            lambda state: without_ban(state, identity) if identity else without_revoked(state, serial, now), who=who
        )
        await self._write("restored", who, identity=identity, serial=serial)

    async def follow_bans(self) -> None:
        """Certificates of banned identities that only this control plane knows are put onto the list, too. Until cancelled."""
        while True:
            self._changed.clear()
            now, state = self._clock(), self._authority.state
            found = [
                one
                for ban in state.banned
                for one in self._certificates_of(ban)
                if one.serial not in state.revoked_serials and one.until > now
            ]
            if found:
                await self._authority.change(functools.partial(with_revoked, found=found, now=now), who="citadel")
            await self._changed.wait()

    def _certificates_of(self, ban: Ban) -> list[Revocation]:
        return [
            Revocation(one.serial, one.identity, ban.reason, ban.at, ban.by, one.not_after)
            for one in self._known.unexpired()
            if one.identity == ban.identity
        ]

    async def _certificate(self, serial: str, reason: str, who: str) -> Revocation:
        if not _SERIAL.fullmatch(serial):
            raise InvalidRequest("serial", "must be a serial number in hexadecimal, as mizzen certs shows them")
        now = self._clock()
        known = next((one for one in self._known.unexpired() if one.serial == serial), None)
        if known is not None:
            return Revocation(serial, known.identity, reason, now, who, known.not_after)
        # Another control plane may have issued it: nothing that we have signed is good for longer than this.
        ends = max((await self._authority.horizons.read()).values(), default=0.0)
        if ends <= now:
            raise InvalidRequest("serial", f"{serial} is no certificate that is good: nothing is to be revoked")
        return Revocation(serial, "", reason, now, who, ends)

    async def _write(self, event: str, who: str, **fields: Any) -> None:
        with contextlib.suppress(
            CannotIssue
        ):  # it is done, and a full disk does not undo it; the audit log has complained
            await self._audit.issued({"time": self._clock(), "event": event, "requester": who, **fields})


def _root(root: x509.Certificate) -> Mapping[str, Any]:
    return {
        "subject": root.subject.rfc4514_string(),
        "serial": f"{root.serial_number:x}",
        "notAfter": root.not_valid_after_utc.timestamp(),
    }
