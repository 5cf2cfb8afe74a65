"""The node agent as a whole: every identity directory below one directory is a workload with a socket of its own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from controlplane.nodeagent.identity_directory import AGENT, CHAIN, SECRET, BadIdentity
from controlplane.nodeagent.listening import WorkloadServer, socket_path
from controlplane.nodeagent.metrics import Metrics
from controlplane.nodeagent.peers import Peers
from controlplane.nodeagent.renewal import Now, jumped, read_clocks
from controlplane.nodeagent.sds import SecretService
from controlplane.nodeagent.workload import Identity, Workload, read_identity
from controlplane.nodeagent.workload_api import WorkloadApi

log = logging.getLogger("controlplane.nodeagent")

_Signature = tuple[tuple[int, int, int] | None, ...]
_LOOK: Final = 1.0


@dataclass
class _Served:
    workload: Workload
    server: WorkloadServer
    signature: _Signature
    task: asyncio.Task[None] = field(repr=False)


class Agent:
    """Serves the identities below ``identities`` (NAMESPACE/ACCOUNT) at SOCKETS/NAMESPACE/ACCOUNT/agent.sock. `start`, `run`
    until it is cancelled, `stop`.

    ``server`` is the control plane of directories without `agent.json`. ``on_serving`` is called with a workload's name and
    socket once that answers. ``interval`` is how often the directories are looked at, in seconds.
    """

    def __init__(
        self,
        identities: Path,
        sockets: Path,
        *,
        server: str = "",
        metrics: Metrics | None = None,
        on_serving: Callable[[str, Path], None] = lambda name, path: None,
        interval: float = _LOOK,
        clocks: Callable[[], Now] = read_clocks,
    ) -> None:
        self.identities = identities
        self.sockets = sockets
        self.server = server
        self.metrics = metrics or Metrics()
        self.bad: dict[str, str] = {}
        self._on_serving = on_serving
        self._interval = interval
        self._clocks = clocks
        self._served: dict[str, _Served] = {}
        self._judged: dict[str, _Signature] = {}
        self._shared: dict[int, list[str]] = {}
        self._lock: int | None = None

    @property
    def workloads(self) -> dict[str, Workload]:
        """Those that are served, by NAMESPACE/ACCOUNT."""
        return {name: one.workload for name, one in self._served.items()}

    def complaints(self) -> list[str]:
        """Why it is not ready; nothing if it is."""
        found = [f"{name}: {message}" for name, message in sorted(self.bad.items())]
        found += [
            f"{name}: {one.workload.current.material.reason}"
            for name, one in sorted(self._served.items())
            if not one.workload.is_good
        ]
        return found

    async def start(self) -> None:
        """Everything that is there is served when it returns. Raises OSError if the directories cannot be used."""
        if not self.identities.is_dir():
            raise OSError(f"{self.identities} is not a directory: make it, or give another --identities")
        self.sockets.mkdir(mode=0o711, parents=True, exist_ok=True)
        descriptor = os.open(self.sockets / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise OSError(f"another node agent serves in {self.sockets}: end it, or give another --sockets") from None
        self._lock = descriptor
        await self._look()

    async def run(self) -> None:
        """Notice what comes, changes and goes."""
        before = self._clocks()
        while True:
            await asyncio.sleep(self._interval)
            now = self._clocks()
            if by := jumped(before, now):
                self.metrics.clock_jumps.inc()
                log.warning("the clock was set %s by %.0f s", "forward" if by > 0 else "back", abs(by))
                for one in self._served.values():
                    one.workload.clock_jumped()
            before = now
            try:
                await self._look()
            except Exception:  # a directory that cannot be read ends nothing that is served
                log.exception("looking for identities in %s failed", self.identities)

    async def stop(self) -> None:
        """End all streams, and take the sockets away; what could not be written is tried once more."""
        await asyncio.gather(*(self._drop(name) for name in list(self._served)))
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # the directories

    async def _look(self) -> None:
        closed: dict[str, str] = {}
        found = await asyncio.to_thread(lambda: dict(_directories(self.identities, closed)))
        changed = False
        for name in [name for name in self._served if name not in found and name.partition("/")[0] not in closed]:
            log.info("%s: the identity is gone: it is served no more", name)
            await self._drop(name)
            changed = True
        for name in [name for name in self.bad if name not in found and name not in closed]:
            del self.bad[name]
        for namespace, message in closed.items():
            if self.bad.get(namespace) != message:
                self.bad[namespace] = message
                log.error("%s: what is new there is not served: %s", namespace, message)
        self._judged = {name: one for name, one in self._judged.items() if name in found}
        for name, (directory, signature) in found.items():
            if self._judged.get(name) != signature:
                changed = await self._judge(name, directory, signature) or changed
        self.metrics.bad_identities.set(len(self.bad))
        if changed:
            self._tell_boundaries()

    async def _judge(self, name: str, directory: Path, signature: _Signature) -> bool:
        """Something is new there; whether other workloads are served now than before."""
        self._judged[name] = signature
        served = self._served.get(name)
        try:
            identity = await asyncio.to_thread(read_identity, directory, server=self.server)
        except Exception as error:  # whatever is there: it is one workload's, and ends nothing of the others
            if not isinstance(error, BadIdentity):
                log.debug("%s: reading failed", name, exc_info=error)
                error = BadIdentity(f"{directory}: cannot be read ({type(error).__name__}: {error}): join again")
            if served is None:
                self.bad[name] = str(error)
                log.error("%s: not served: %s", name, error)
            else:
                log.error("%s: what is there is not taken, what was there goes on: %s", name, error)
            return False
        self.bad.pop(name, None)
        if served is not None and served.workload.identity.serves_as(identity):
            served.workload.changed_on_disk(identity)
            return False
        if served is not None:
            log.info("%s: %s has changed: the socket is made anew", name, AGENT)
            await self._drop(name)
        try:
            await self._serve(identity, signature)
        except OSError as error:
            self.bad[name] = str(error)
            del self._judged[name]
            log.error("%s: not served: %s", name, error)
        return True

    async def _serve(self, identity: Identity, signature: _Signature) -> None:
        workload = Workload(identity, self.metrics, self._clocks)
        uids = {0, *identity.uids}
        peers = Peers(identity.name, uids, self.metrics)
        path = socket_path(self.sockets, identity.renewing.namespace, identity.renewing.service_account)
        handlers = (
            SecretService(workload.current, peers, self.metrics),
            WorkloadApi(workload.current, workload.tokens, peers, self.metrics),
        )
        server = WorkloadServer(path, handlers, uids)
        await server.start()
        task = asyncio.create_task(workload.run())
        self._served[identity.name] = _Served(workload, server, signature, task)
        log.info(
            "%s: serving %s at %s to uid %s",
            identity.name,
            identity.svid.spiffe_id,
            path,
            ", ".join(map(str, sorted(uids))),
        )
        self._on_serving(identity.name, path)

    async def _drop(self, name: str) -> None:
        served = self._served.pop(name)
        served.task.cancel()
        await asyncio.gather(served.task, return_exceptions=True)
        await served.server.stop()
        if served.workload.identity.directory.exists():
            with contextlib.suppress(OSError):
                await served.workload.flush()
        self.metrics.forget(name)

    def _tell_boundaries(self) -> None:
        """Processes of one user can have all identities of that user: say where there is no boundary."""
        users: dict[int, list[str]] = {}
        for name, one in sorted(self._served.items()):
            for uid in one.workload.identity.uids:
                users.setdefault(uid, []).append(name)
        shared = {uid: names for uid, names in users.items() if len(names) > 1}
        for uid, names in shared.items():
            if self._shared.get(uid) != names:
                log.warning(
                    "there is no boundary between these workloads, for they are all of uid %d, and each can have the identity "
                    "of any other: %s. For a boundary run each as a user of its own, and name it in `uid` of %s",
                    uid, ", ".join(names), AGENT,
                )  # fmt: skip
        self._shared = shared


def _directories(identities: Path, closed: dict[str, str]) -> Iterator[tuple[str, tuple[Path, _Signature]]]:
    """The identity directories, by NAMESPACE/ACCOUNT, and by what a change of one is noticed. ``closed`` gets the namespaces
    that cannot be looked into, and why.
    """
    for namespace in sorted(identities.iterdir()):
        if namespace.name.startswith("."):
            continue
        try:
            listed = sorted(namespace.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            closed[namespace.name] = f"{namespace}: {error.strerror or error}"
            continue
        for directory in listed:
            if directory.name.startswith("."):
                continue
            signature = tuple(_signature(directory / name) for name in (SECRET, CHAIN, AGENT))
            if signature[0] is not None or signature[1] is not None:
                yield f"{namespace.name}/{directory.name}", (directory, signature)


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
