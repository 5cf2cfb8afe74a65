"""What ends soon, and nobody seems to do anything about it: told in the log, by `mizzen`, and as figures."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controlplane.citadel.authority import CertificateAuthority
from controlplane.citadel.authority_state import Phase
from controlplane.citadel.issued import IssuedCertificates
from controlplane.citadel.rotating import Rotations
from controlplane.citadel.rotation import unconfirmed
from controlplane.model.certificates import IssuedCertificate, IssuerCertificate

log = logging.getLogger("controlplane.citadel")

_DAY: Final = 86400.0
# What is left when it is said, and how loud; at most that share of the whole life, for those that were made to live briefly.
_AUTHORITY: Final = (
    (30 * _DAY, 1 / 12, logging.CRITICAL),
    (90 * _DAY, 1 / 6, logging.ERROR),
    (365 * _DAY, 1 / 3, logging.WARNING),
)
_OVERDUE: Final = 0.75  # of a leaf's life: whoever renews has done so at half of it
_LOOK: Final = 15.0
_LOOK_ROTATING: Final = 2.0
_AGAIN: Final = _DAY  # seconds after which the same is said again
_NAMED: Final = 5
_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Summary:
    """Of workloads' certificates, the newest of each identity and address: how many there are, when the first ends (seconds
    since the epoch, 0 for none), and those that should have been renewed. ``gate`` and ``waiting`` are of the rotation.
    """

    workloads: int = 0
    earliest: float = 0.0
    overdue: tuple[IssuedCertificate, ...] = ()
    gate: int = 0
    waiting: int = 0


class Expiry:
    """Looks at what there is, again and again."""

    def __init__(
        self,
        authority: CertificateAuthority,
        known: IssuedCertificates,
        rotations: Rotations,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authority = authority
        self._known = known
        self._rotations = rotations
        self._clock = clock
        self._said: dict[str, tuple[int, float]] = {}
        self.summary = Summary()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK if self._authority.state.rotation is None else _LOOK_ROTATING)

    async def look(self) -> None:
        """Take stock, and say what is new in it."""
        self.summary = await self._summarize()
        now = self._clock()
        found = self._findings()
        for subject, level, message in found:
            before = self._said.get(subject)
            if before is None or before[0] != level or now - before[1] >= _AGAIN:
                self._said[subject] = (level, now)
                log.log(level, "%s", message)
        subjects = {subject for subject, _, _ in found}
        self._said = {subject: said for subject, said in self._said.items() if subject in subjects}

    def warnings(self) -> list[str]:
        """What somebody should look at soon, the worst first."""
        return [message for _, _, message in sorted(self._findings(), key=lambda one: -one[1])]

    def _findings(self) -> list[tuple[str, int, str]]:
        """What it is about, how bad it is (a level of logging), and the words."""
        found = []
        now = self._clock()
        for one in self._authority.issuers():
            level = _level(one, now)
            if level:
                found.append((one.serial, level, _words(one, now, self._authority.is_given)))
        overdue = self.summary.overdue
        if overdue:
            names = ", ".join(f"{one.identity} at {one.source.rpartition(':')[0] or '?'}" for one in overdue[:_NAMED])
            more = f" and {len(overdue) - _NAMED} more" if len(overdue) > _NAMED else ""
            found.append((
                "overdue",
                logging.WARNING,
                f"nobody renews, past three quarters of their life, the certificates of {names}{more}: is the node agent "
                "there running (its /ready says why it cannot renew), or is the workload gone?",
            ))  # fmt: skip
        return found

    async def _summarize(self) -> Summary:
        newest: dict[tuple[str, str], IssuedCertificate] = {}
        for number, one in enumerate(self._known.unexpired()):
            newest[one.identity, one.source.rpartition(":")[0]] = one
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
        state, now = self._authority.state, self._clock()
        believed = [
            one
            for one in newest.values()
            if one.serial not in state.revoked_serials and one.identity not in state.banned_identities
        ]
        overdue = [one for one in believed if now > one.issued_at + _OVERDUE * (one.not_after - one.issued_at)]
        gate = waiting = 0
        if state.rotation is not None and state.rotation.phase is Phase.DISTRIBUTING:
            holders, _ = await self._rotations.holders()
            gate, waiting = 1, len(unconfirmed(state, holders, now, state.rotation.since or state.version + 1))
        elif state.rotation is not None:
            waiting = len([one for one in believed if one.issued_at < state.rotation.switched])
            gate = 2 if waiting else 3
        ends = min((one.not_after for one in believed), default=0.0)
        return Summary(len(believed), ends, tuple(overdue), gate, waiting)


def _level(certificate: IssuerCertificate, now: float) -> int:
    left, life = certificate.not_after - now, certificate.not_after - certificate.not_before
    return next((level for seconds, share, level in _AUTHORITY if left < min(seconds, share * life)), 0)


def _words(certificate: IssuerCertificate, now: float, given: bool) -> str:
    left = certificate.not_after - now
    when = f"ends in {left / _DAY:.0f} days" if left > 2 * _DAY else f"ends in {max(0.0, left) / 3600:.0f} hours"
    remedy = "give a new one by --ca-directory" if given else "replace it: mizzen ca rotate"
    if not certificate.signing and certificate.role == "root" and not given:
        remedy = "it is on its way out"
    return (
        f"the {certificate.role} {certificate.subject} (serial {certificate.serial}) {when}, and nothing that it signs "
        f"outlives it: {remedy}"
    )
