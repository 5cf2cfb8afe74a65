"""Analysis of a mesh that is alive: again after each change, without being in the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from controlplane.galley.analysis.analyze import analyze, validation_messages
from controlplane.galley.analysis.policies import analyze_issuers
from controlplane.model.mesh_config import MeshConfig
from controlplane.model.proxy import Proxy
from controlplane.model.resource import Resource, ResourceKey

_log = logging.getLogger(__name__)

Findings = Mapping[ResourceKey, Sequence[Mapping[str, Any]]]


class FollowingAnalysis:
    """Tells what is found in ``resources`` (those in effect), in the form of statuses, for as long as `run` runs.

    It works in a thread, begins ``quiet`` seconds after a change, because much of what does not fit together is made whole
    by the next one, and takes no more than ``share`` of the time: where it takes long, it comes less often.
    ``unknown_issuers`` are those whose keys are not known, and why.
    """

    def __init__(
        self,
        resources: Mapping[ResourceKey, Resource],
        tell: Callable[[Findings], None],
        proxies: Callable[[], Iterable[Proxy]] = tuple,
        *,
        unknown_issuers: Callable[[], Mapping[str, str]] = dict,
        domain: str = "cluster.local",
        default_mesh: MeshConfig | None = None,
        quiet: float = 0.5,
        share: float = 0.1,
    ) -> None:
        self._resources = resources
        self._tell = tell
        self._proxies = proxies
        self._unknown_issuers = unknown_issuers
        self._domain = domain
        self._default_mesh = default_mesh
        self._quiet = quiet
        self._share = share
        self._something = asyncio.Event()
        self._something.set()

    def changed(self) -> None:
        """Resources, or the proxies that are connected, are different."""
        self._something.set()

    async def run(self) -> None:
        """Analyse until cancelled."""
        clock = asyncio.get_running_loop().time
        self._something.set()
        while True:
            await self._something.wait()
            await asyncio.sleep(self._quiet)
            self._something.clear()
            began = clock()
            try:
                mesh = (dict(self._resources), tuple(self._proxies()), self._domain, self._default_mesh)
                found = await asyncio.to_thread(analyze, *mesh)
                found += analyze_issuers(mesh[0], self._unknown_issuers())
            except Exception:  # a fault of an analyzer must not end what else is told of the mesh
                _log.exception("the analysis failed; statuses keep what was found before")
            else:
                self._tell(validation_messages(found))
            await asyncio.sleep((clock() - began) * (1 / self._share - 1))
