"""The rotation of the root as it goes on: who has confirmed, told by each control plane; the leading one passes the gates."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from controlplane.citadel.audit import AuditLog
from controlplane.citadel.authority import CertificateAuthority
from controlplane.citadel.authority_state import AuthorityState, Phase
from controlplane.citadel.bundles import TrustBundles
from controlplane.citadel.issued import IssuedCertificates
from controlplane.citadel.revocation import pruned
from controlplane.citadel.rotation import Holder, counted, last_end, retire, switch, unconfirmed
from controlplane.model.certificates import CannotIssue
from controlplane.model.election import Presence
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Store

log = logging.getLogger("controlplane.citadel")

REPORT_KIND: Final = "_RotationReport"
_LOOK: Final = 0.5  # seconds between two looks at a rotation that is under way
_LOOK_IDLE: Final = 30.0
_HOLDERS_IN_A_REPORT: Final = 5000
_AT_ONCE: Final = 1000
_GRACE: Final = 1.0  # seconds: what has ended has ended everywhere

_Holders = dict[tuple[str, str], Holder]


class Rotations:
    """Of one control plane. `report` and `lead` run until cancelled: the first on each, the second on the one that leads."""

    def __init__(
        self,
        store: Store,
        authority: CertificateAuthority,
        bundles: TrustBundles,
        known: IssuedCertificates,
        audit: AuditLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._authority = authority
        self._bundles = bundles
        self._known = known
        self._audit = audit
        self._clock = clock
        self._changed = asyncio.Event()
        self._said: tuple[str, int] | None = None
        self.presence: Presence | None = None
        authority.listeners.append(self._changed.set)

    async def lead(self) -> None:
        """Pass the gates when it is time, and forget revoked certificates that have expired."""
        while True:
            await self._step()
            await self._pause(_LOOK if self._authority.state.rotation is not None else _LOOK_IDLE)

    async def report(self) -> None:
        """Tell the others who has confirmed here, while somebody waits for that."""
        told: Any = None
        while True:
            rotation = self._authority.state.rotation
            others = await self._others()
            if rotation is not None and rotation.phase is Phase.DISTRIBUTING and others:
                holders = sorted((await self._own_holders()).values(), key=lambda one: (one.identity, one.host))
                found = (rotation.since, [(one.identity, one.host, one.version, one.until) for one in holders])
                if found != told:
                    await self._tell(rotation.since, holders)
                    told = found
            elif told is not None:
                await self._forget_reports()
                told = None
            await asyncio.sleep(_LOOK if rotation is not None else 2.0)

    async def holders(self) -> tuple[list[Holder], list[str]]:
        """All who have certificates or have asked for the trust bundle, and the control planes that have not told of theirs."""
        found = await self._own_holders()
        silent = set(await self._others())
        rotation = self._authority.state.rotation
        for stored in (await self._store.list(REPORT_KIND)).items:
            report = json.loads(stored.document)
            if report["instance"] == self._identity:
                continue
            if rotation is not None and report["since"] == rotation.since:
                silent.discard(report["instance"])
            for entry in report["holders"]:
                holder = Holder(*entry)
                key = (holder.identity, holder.host)
                found[key] = holder.merged(found[key]) if key in found else holder
        return list(found.values()), sorted(silent)

    async def force(self, *, who: str) -> str:
        """Pass the gate though it is not time, and say what was done. Raises NotNow."""
        rotation = self._authority.state.rotation
        if rotation is not None and rotation.phase is Phase.MOVING:
            return await self._retire(f"{who}, before the last certificate under the old root has ended")
        holders, _ = await self.holders()
        waiting = [] if rotation is None else unconfirmed(self._authority.state, holders, self._clock())
        return await self._switch(len(holders), f"{who}, without {len(waiting)} that have not confirmed")

    async def last_end(self) -> float:
        """When the last certificate ends that keeps the old root."""
        return last_end(self._authority.state, await self._authority.horizons.read())

    def not_moved(self) -> list[tuple[str, str, float]]:
        """Identity, address and end of the newest certificates that are still of the old root."""
        rotation = self._authority.state.rotation
        assert rotation is not None
        newest = {(one.identity, one.source.rpartition(":")[0]): one for one in self._known.unexpired()}
        return [
            (identity, host, one.not_after)
            for (identity, host), one in newest.items()
            if one.issued_at < rotation.switched
        ]

    # the gates

    async def _step(self) -> None:
        now, state = self._clock(), self._authority.state
        if any(one.until <= now for one in state.revoked):
            await self._authority.change(lambda newest: pruned(newest, now), who="citadel")
        rotation = state.rotation
        if rotation is None:
            return
        if rotation.phase is Phase.MOVING:
            if await self.last_end() + _GRACE < now:
                await self._retire("the last certificate under the old root has ended")
        elif rotation.since == 0:
            await self._authority.change(_counted, who="citadel")
        else:
            await self._try_switch(state, now)

    async def _try_switch(self, state: AuthorityState, now: float) -> None:
        rotation = state.rotation
        assert rotation is not None
        holders, silent = await self.holders()
        waiting = unconfirmed(state, holders, now)
        if not waiting and not silent:
            await self._switch(len(holders), f"all {len(holders)} have confirmed")
        elif rotation.deadline is not None and rotation.deadline <= now:
            late = len(waiting)
            await self._switch(len(holders), f"{late} have not confirmed in the time that {rotation.by} has accepted")
        elif self._said != (rotation.incoming, len(waiting)):
            self._said = (rotation.incoming, len(waiting))
            names = ", ".join(f"{one.identity} at {one.host}" for one in waiting[:5])
            log.info("the new root waits for %d to confirm it: %s", len(waiting) + len(silent), names or silent)

    async def _switch(self, holders: int, why: str) -> str:
        now = self._clock()
        await self._authority.change(lambda state: switch(state, holders, now=now), who="citadel")
        signer = self._authority.state.signer
        log.warning("the new root signs now (%s): %s", why, signer.root.subject.rfc4514_string())
        await self._write("root-signs", f"{signer.root.serial_number:x}", why)
        return why

    async def _retire(self, why: str) -> str:
        before = self._authority.state.roots
        now = self._clock()
        await self._authority.change(lambda state: retire(state, now=now), who="citadel")
        gone = [f"{root.serial_number:x}" for root in before if root not in self._authority.state.roots]
        log.warning("the old root is not trusted any more (%s): serial %s", why, ", ".join(gone))
        await self._write("root-removed", ", ".join(gone), why)
        return why

    async def _write(self, event: str, serial: str, why: str) -> None:
        with contextlib.suppress(
            CannotIssue
        ):  # it is done, and a full disk does not undo it; the audit log has complained
            await self._audit.issued({"time": self._clock(), "event": event, "serial": serial, "reason": why})

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):  # Python 3.11's wait_for may lose a cancellation
                await self._changed.wait()
        except TimeoutError:
            return
        finally:
            self._changed.clear()

    # who there is

    @property
    def _identity(self) -> str:
        return "" if self.presence is None else self.presence.identity

    async def _others(self) -> list[str]:
        if self.presence is None:
            return []
        return [one for one in await self.presence.alive() if one != self._identity]

    async def _own_holders(self) -> _Holders:
        """In pieces: of ten thousand workloads there are many."""
        found: _Holders = {}
        denied = self._authority.state.revoked_serials
        for number, one in enumerate(self._known.unexpired()):
            if one.serial not in denied:
                key = (one.identity, one.source.rpartition(":")[0])
                until = max(one.not_after, found[key].until if key in found else 0.0)
                found[key] = Holder(*key, 0, 0.0, until)
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
        for number, said in enumerate(self._bundles.confirmations()):
            key = (said.identity, said.source)
            until = found[key].until if key in found else 0.0
            found[key] = Holder(*key, said.version, said.at, until)
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
        return found

    async def _tell(self, since: int, holders: list[Holder]) -> None:
        chunks = [
            holders[start : start + _HOLDERS_IN_A_REPORT]
            for start in range(0, max(1, len(holders)), _HOLDERS_IN_A_REPORT)
        ]
        # The first comes last: whoever sees it sees all.
        for number, chunk in reversed(list(enumerate(chunks))):
            document: Mapping[str, Any] = {
                "instance": self._identity,
                "since": since if number == 0 else -1,
                "holders": [[one.identity, one.host, one.version, one.asked, one.until] for one in chunk],
            }
            key = ResourceKey(REPORT_KIND, "", f"{self._identity}.{number}")
            await self._store.put(key, json.dumps(document).encode(), expected=None, who="citadel")

    async def _forget_reports(self) -> None:
        alive = {self._identity, *(await self._others())}
        for stored in (await self._store.list(REPORT_KIND)).items:
            instance = json.loads(stored.document)["instance"]
            if instance == self._identity or instance not in alive:
                await self._store.delete(stored.key, expected=None, who="citadel")


def _counted(state: AuthorityState) -> AuthorityState:
    rotation = state.rotation
    return state if rotation is None or rotation.since or rotation.phase is not Phase.DISTRIBUTING else counted(state)
