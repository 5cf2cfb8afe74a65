"""One workload of the node: its certificate is renewed in time and kept, its trust bundle followed.

Nothing that goes wrong here ends it: what is good goes on being served, what is over is not served any more, and each attempt
that fails is said and made again.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import json
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controlplane.nodeagent.control_plane import WAIT, ControlPlane, ControlPlaneError
from controlplane.nodeagent.current import Current, Material
from controlplane.nodeagent.identity_directory import (
    BUNDLE,
    CHAIN,
    ROOT,
    SECRET,
    BadIdentity,
    Renewing,
    read_file,
    read_pair,
    read_renewing,
    write_pair,
    write_private,
)
from controlplane.nodeagent.jwt_svids import JwtSvids
from controlplane.nodeagent.metrics import Metrics
from controlplane.nodeagent.renewal import Now, Schedule, read_clocks
from controlplane.nodeagent.svid import Svid, parse_svid, workload_of
from controlplane.nodeagent.trust_bundle import TrustBundle, bundle_of_root, parse_bundle

log = logging.getLogger("controlplane.nodeagent")

_LOOK: Final = 5.0  # seconds between two looks at the clocks, at most
_LEAST: Final = 0.2  # seconds between two questions for the trust bundle
_UNHURRIED: Final = 20 * WAIT  # seconds that a certificate is good at least, so that its renewal may wait for its turn
_ACKNOWLEDGED: Final = 5.0  # seconds between two looks for another bundle, while proxies have not taken the last
_SAVE_AGAIN: Final = (1.0, 30.0)
_WITHOUT: Final = 60.0  # seconds between two questions for what the control plane does not serve, or does not number


@dataclass(frozen=True, slots=True)
class Identity:
    """What an identity directory has. ``since`` is when its certificate came, ``owner`` the directory's user id."""

    directory: Path
    renewing: Renewing
    svid: Svid
    since: float
    bundle: TrustBundle
    owner: int

    @property
    def name(self) -> str:
        """NAMESPACE/ACCOUNT."""
        return f"{self.renewing.namespace}/{self.renewing.service_account}"

    @property
    def uids(self) -> tuple[int, ...]:
        """Whose processes may have the identity, root aside."""
        return (self.owner,) if self.renewing.uids is None else self.renewing.uids

    def serves_as(self, other: Identity) -> bool:
        """Whether both have the same control plane and the same users."""
        return self.renewing.server == other.renewing.server and self.uids == other.uids


def read_identity(directory: Path, *, server: str = "") -> Identity:
    """What is in a directory NAMESPACE/ACCOUNT. Raises BadIdentity."""
    renewing = read_renewing(directory, server=server)
    try:
        svid = parse_svid(*read_pair(directory))
        names = workload_of(svid.spiffe_id)
    except BadIdentity:
        raise
    except ValueError as error:
        raise BadIdentity(f"{directory}: {error}: join again") from None
    if names != (renewing.namespace, renewing.service_account):
        raise BadIdentity(
            f"{directory} has the certificate of {svid.spiffe_id}: the directory must be named {'/'.join(names)}"
        )
    try:
        came = next(path for name in (SECRET, CHAIN) if (path := directory / name).exists()).stat().st_mtime
        owner = directory.stat().st_uid
    except (OSError, StopIteration) as error:
        raise BadIdentity(f"{directory}: has changed while it was read: {error}") from error
    since = min(max(came, svid.not_before), svid.not_after)
    return Identity(directory, renewing, svid, since, _read_bundle(directory, svid.trust_domain), owner)


def _read_bundle(directory: Path, trust_domain: str) -> TrustBundle:
    kept = read_file(directory / BUNDLE)
    if kept is not None:
        try:
            return parse_bundle(json.loads(kept), trust_domain)
        except ValueError as error:
            log.warning("%s: %s; going on by %s", directory / BUNDLE, error, ROOT)
    root = read_file(directory / ROOT)
    if root is None:
        raise BadIdentity(f"{directory / ROOT} is missing: the control plane cannot be believed without it: join again")
    try:
        return bundle_of_root(root, trust_domain)
    except ValueError as error:
        raise BadIdentity(f"{directory / ROOT}: {error}") from None


class Workload:
    """``current`` is what it is served. `run` until it is cancelled."""

    def __init__(self, identity: Identity, metrics: Metrics, clocks: Callable[[], Now] = read_clocks) -> None:
        self.identity = identity
        self.name = identity.name
        self.metrics = metrics
        self.svid = identity.svid
        self.bundle = identity.bundle
        self._clocks = clocks
        self._control_plane = ControlPlane(identity.renewing.server)
        self._schedule = Schedule(identity.since, self.svid.not_after, clocks())
        self._wake = asyncio.Event()
        self._taken = asyncio.Event()
        self._unsaved = False
        self._save_again = 0.0
        self._save_pause = _SAVE_AGAIN[0]
        self._own: collections.deque[str] = collections.deque(maxlen=32)
        self._was_good = True
        self._without_bundles = False
        self._hastened = False
        self._unused = asyncio.Event()
        self._no_room = False
        self._asking: asyncio.Task[float] | None = None
        self.tokens = JwtSvids(self._control_plane, self.svid.spiffe_id, lambda: clocks().wall)
        self.current = Current(Material(self.svid, self.bundle))
        self.current.acknowledged = self._taken.set
        self._judge(clocks())
        self._move()

    def __repr__(self) -> str:
        return f"<workload {self.name}: {self.svid!r}>"

    @property
    def is_good(self) -> bool:
        """Whether it has a certificate to serve."""
        return self.current.material.svid is not None

    async def run(self) -> None:
        """Renew and follow."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._renew())
                group.create_task(self._follow())
        finally:
            await self._control_plane.close()

    def clock_jumped(self) -> None:
        """Somebody has set the clock: look at once."""
        self._hastened = True
        self._unused.set()
        self._schedule.at_once()
        self._wake.set()

    def changed_on_disk(self, identity: Identity) -> None:
        """Somebody else has written there, `mizzen join` say: its certificate is taken if it is good."""
        self.identity, svid = identity, identity.svid
        if svid.serial in self._own or svid.serial == self.svid.serial:
            return
        now = self._clocks()
        if svid.not_after <= now.wall:
            log.warning(
                "%s: the certificate that was put into %s is over: it is not taken", self.name, identity.directory
            )
            return
        log.info(
            "%s: taking the certificate that was put into %s, serial %s", self.name, identity.directory, svid.serial
        )
        self._unsaved = False
        # Who joins again writes the root alone: what was heard of the same mesh since then is more.
        if identity.bundle.version or not self.bundle.extends(identity.bundle):
            self.bundle = identity.bundle
            self.tokens.forget()
            if self._asking is not None:
                self._asking.cancel()  # it waits for what is other than the bundle before
        self._take(svid, identity.since, now)
        self._wake.set()

    async def flush(self) -> None:
        """What is not on disk yet is written, if that is possible, and nobody else has written there since."""
        if self._unsaved and await asyncio.to_thread(self._is_ours_on_disk):
            await self._save()

    def _is_ours_on_disk(self) -> bool:
        try:
            svid = parse_svid(*read_pair(self.identity.directory))
        except ValueError:
            return True  # there is nothing that could be lost
        return svid.serial == self.identity.svid.serial or svid.serial in self._own

    # the certificate

    async def _renew(self) -> None:
        while True:
            now = self._clocks()
            try:
                self._judge(now)
                if self._unsaved and now.steady >= self._save_again:
                    await self._save()
                if self._schedule.until_due(now) <= 0:
                    await self._attempt()
                    now = self._clocks()
            except Exception:  # whatever it is: nobody else would try again
                log.exception("%s: renewing failed", self.name)
                self._schedule.failed(now)
            pauses = [_LOOK, self._schedule.until_due(now)]
            if self.is_good:
                pauses.append(self._schedule.left(now))
            if self._unsaved:
                pauses.append(self._save_again - now.steady)
            try:
                async with asyncio.timeout(max(0.01, min(pauses))):  # Python 3.11's wait_for may lose a cancellation
                    await self._wake.wait()
            except TimeoutError:
                continue
            finally:
                self._wake.clear()

    async def _attempt(self) -> None:
        try:
            svid = await self._certificate()
        except ControlPlaneError as error:
            self._say_failed(error, self._clocks())
            return
        now = self._clocks()
        self.metrics.renewals.labels(self.name).inc()
        self._own.append(svid.serial)
        self._unsaved, self._save_again, self._save_pause = True, 0.0, _SAVE_AGAIN[0]
        self._take(svid, now.wall, now)
        if not svid.not_before <= now.wall < svid.not_after:
            log.error(
                "%s: the new certificate is good from %s to %s, and by this machine's clock it is %s: set the clock",
                self.name, _time(svid.not_before), _time(svid.not_after), _time(now.wall),
            )  # fmt: skip
        else:
            log.info("%s: renewed until %s, serial %s", self.name, _time(svid.not_after), svid.serial)
        await self._save()

    async def _certificate(self) -> Svid:
        lifetime = self.identity.renewing.lifetime
        await self._until_unused()
        try:
            return await self._control_plane.renew(self.svid.spiffe_id, lifetime)
        except ControlPlaneError as error:
            if error.status != 422 or lifetime is None:
                raise
            log.warning(
                "%s: not for %.0f s, so for as long as the control plane has it: %s", self.name, lifetime, error
            )
        return await self._control_plane.renew(self.svid.spiffe_id, None)

    async def _until_unused(self) -> None:
        """If there is time for it a renewal is asked between two questions for the bundle, on the same connection."""
        for _ in range(int(2 * WAIT / _LOOK)):
            now = self._clocks()
            self._judge(now)
            if self._hastened or self._schedule.failures or self._schedule.left(now) < _UNHURRIED:
                return
            if not self._control_plane.is_busy:
                return
            self._unused.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._unused.wait(), _LOOK)

    def _say_failed(self, error: ControlPlaneError, now: Now) -> None:
        self.metrics.renewal_failures.labels(self.name).inc()
        left, pause = self._schedule.left(now), self._schedule.failed(now)
        if left <= 0:
            log.error(
                "%s: no certificate: the last ended %s ago and is not renewed: %s. Next attempt in %.1f s; if the control "
                "plane is there, %s", self.name, _span(-left), error, pause,
                self.identity.renewing.joining_again(self.identity.directory),
            )  # fmt: skip
        else:
            level = logging.ERROR if left < self._schedule.life / 4 else logging.WARNING
            log.log(
                level, "%s: not renewed (attempt %d): %s. The certificate is good for %s; next attempt in %.1f s",
                self.name, self._schedule.failures, error, _span(left), pause,
            )  # fmt: skip

    def _take(self, svid: Svid, since: float, now: Now) -> None:
        self.svid = svid
        self._hastened = False
        self._schedule = Schedule(since, svid.not_after, now)
        self._judge(now)

    def _judge(self, now: Now) -> None:
        """Serve what is good, and nothing that is over."""
        over = self._schedule.is_over(now)
        reason = ""
        if over:
            reason = (
                f"the certificate of {self.svid.spiffe_id} ended {_time(self.svid.not_after)} and is not renewed yet"
            )
        self._control_plane.show(self.svid, self.bundle)
        self.current.replace(Material(None if over else self.svid, self.bundle, reason))
        self.metrics.expiry.labels(self.name).set(self.svid.not_after)
        self.metrics.good.labels(self.name).set(not over)
        if over and self._was_good:
            log.critical("%s: %s: it is not served any more", self.name, reason)
        elif not over and not self._was_good:
            log.warning("%s: there is a good certificate again, until %s", self.name, _time(self.svid.not_after))
        self._was_good = not over

    async def _save(self) -> None:
        svid, directory = self.svid, self.identity.directory
        try:
            await asyncio.to_thread(write_pair, directory, svid.chain, svid.key)
        except OSError as error:
            self.metrics.write_failures.labels(self.name).inc()
            self._save_again = self._clocks().steady + self._save_pause
            log.error(
                "%s: the new certificate is served from memory, for it cannot be kept in %s: %s. What was there stays; next "
                "attempt in %.0f s", self.name, directory, error.strerror or error, self._save_pause,
            )  # fmt: skip
            self._save_pause = min(_SAVE_AGAIN[1], self._save_pause * 2)
        else:
            if self._save_pause > _SAVE_AGAIN[0]:
                log.warning("%s: the certificate is kept in %s now", self.name, directory)
            self._unsaved, self._save_pause = self.svid is not svid, _SAVE_AGAIN[0]

    # the trust bundle

    async def _follow(self) -> None:
        failures = 0
        while True:
            self._asking = asyncio.create_task(self._ask_for_bundle())
            try:
                pause = await self._asking
                failures, pause = 0, pause or (_WITHOUT if not self.bundle.version else 0.0)
            except asyncio.CancelledError:
                self._asking.cancel()
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
                pause = 0.0  # there is another bundle to go by
            except ControlPlaneError as error:
                pause = self._say_no_bundle(error, failures)
                failures += 1
            except Exception:  # whatever it is: nobody else would try again
                log.exception("%s: following the trust bundle failed", self.name)
                pause = _WITHOUT
            self._unused.set()
            if not pause:
                await self._until_taken()
            # Never without a pause: a renewal that waits for the connection has it meanwhile.
            await asyncio.sleep(max(pause, _LEAST))

    async def _until_taken(self) -> None:
        """Everybody here goes by the bundle, or has not said so for a while. What local clients say does not make us ask the
        control plane more often.
        """
        try:
            async with asyncio.timeout(_ACKNOWLEDGED):
                while not (self.is_good and self.current.is_taken(self.bundle)):
                    self._taken.clear()
                    await self._taken.wait()
        except TimeoutError:
            pass

    async def _ask_for_bundle(self) -> float:
        """Seconds until the next question, 0 for no pause."""
        bundle, pause = self.bundle, 0.0
        have = bundle.version if self.is_good and self.current.is_taken(bundle) else ""
        try:
            found = await self._control_plane.trust_bundle(self.svid.trust_domain, have, as_anybody=not self.is_good)
            self._no_room = False
        except ControlPlaneError as error:
            if error.status != 429 or not have:
                raise
            if not self._no_room:
                log.warning("%s: the trust bundle is asked for from time to time alone: %s", self.name, error)
            self._no_room = True
            pause = (error.retry_after or _WITHOUT) * random.uniform(0.5, 1.0)
            found = await self._control_plane.trust_bundle(self.svid.trust_domain, have, wait=False)
        if found is None or found == self.bundle:
            return pause
        log.info("%s: the trust bundle is %r now, it was %r", self.name, found, self.bundle)
        if found.jwks != self.bundle.jwks:
            self.tokens.forget()
        self.bundle = found
        self._judge(self._clocks())
        self._move()
        try:
            await asyncio.to_thread(write_private, self.identity.directory / BUNDLE, found.document())
            await asyncio.to_thread(write_private, self.identity.directory / ROOT, found.roots)
        except OSError as error:
            self.metrics.write_failures.labels(self.name).inc()
            log.error(
                "%s: the trust bundle is served from memory, for it cannot be kept in %s: %s",
                self.name, self.identity.directory, error.strerror or error,
            )  # fmt: skip
        return pause

    def _move(self) -> None:
        """Another root signs now: the certificate under the old one is renewed before it would be due."""
        bundle = self.bundle
        if bundle.renew_within and not bundle.leads_to_first_root(self.svid.chain):
            log.info("%s: another root signs now: renewing within %.0f s", self.name, bundle.renew_within)
            self._schedule.hasten(self._clocks(), bundle.renew_within)
            self._hastened = True
            self._unused.set()
            self._wake.set()

    def _say_no_bundle(self, error: ControlPlaneError, failures: int) -> float:
        if error.status == 404:
            if not self._without_bundles:
                log.warning("%s: the control plane tells no trust bundles: the root does not change", self.name)
                self._without_bundles = True
            return _WITHOUT
        self.metrics.bundle_failures.labels(self.name).inc()
        pause = min(30.0, 2.0 ** min(failures, 8)) * random.uniform(0.25, 0.5)
        pause = max(pause, error.retry_after * random.uniform(0.5, 1.0))
        level = logging.WARNING if failures in (0, 10) or failures % 100 == 99 else logging.DEBUG
        log.log(level, "%s: no word of the trust bundle: %s; again in %.1f s", self.name, error, pause)
        return pause


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
