"""From a resource to an object of the configuration, or to the reasons why it is not one.

The rule is the bootstrap's: what is unknown, wrong or not implemented refuses the resource that holds it, and no other one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from sidecar.config.bootstrap import Bootstrap
from sidecar.config.constraints import check
from sidecar.config.context import Context, FindFormatProblems
from sidecar.config.extensions import UnknownType, type_name_of
from sidecar.config.fields import Node
from sidecar.config.packed import unpack
from sidecar.config.problems import ConfigurationError
from sidecar.config.runtime import Runtime
from sidecar.core.discovery import DiscoveredResource
from sidecar.core.pace import Pace

_log = logging.getLogger(__name__)

T = TypeVar("T")

LARGE: Final = 3000
"""Bytes of a resource that may take too long for a slice of the loop: some hundred routes, say."""

BULK: Final = 32768
"""Bytes of resources within a second that make so many objects that the collector had better not look at them at all."""


class Refused(Exception):
    """A resource is not applied; the text says why."""


class Judge:
    """Judges the resources of one sidecar. ``clusters`` are the names of those that there are, as they are at any time."""

    __slots__ = (
        "_bootstrap",
        "_clusters",
        "_find_format_problems",
        "_ignored",
        "_since",
        "_taken",
        "_warned",
        "on_bulk",
    )

    def __init__(
        self, bootstrap: Bootstrap, find_format_problems: FindFormatProblems, clusters: Collection[str]
    ) -> None:
        self._bootstrap = bootstrap
        self._find_format_problems = find_format_problems
        self._clusters = clusters
        self._ignored: set[tuple[str, str]] = set()
        self._warned: set[str] = set()
        self._since = 0.0
        self._taken = 0  # bytes since then
        self.on_bulk: Callable[[], None] = lambda: None  # called when a lot of configuration has come

    def unpack(self, payload: Any, type_name: str) -> Any:
        """The message in an Any. Raises Refused for any other type."""
        if type_name_of(payload.type_url) != type_name:
            raise Refused(f"is a {type_name_of(payload.type_url) or 'message without a type'}, not a {type_name}")
        try:
            return unpack(payload)
        except (UnknownType, ValueError) as error:
            raise Refused(str(error)) from None

    def context(self, message: Any, kind: str, name: str) -> Context:
        """Where builders record what they find out about a message, Envoy's own constraints having been checked."""
        bootstrap = self._bootstrap
        context = Context(f"{kind} {name!r}", None, self._find_format_problems, self._ignored)
        context.runtime = Runtime(bootstrap.layered_runtime)
        context.local_cluster_name = bootstrap.cluster_manager.local_cluster_name
        dynamic = bootstrap.dynamic_resources
        context.has_ads = dynamic is not None and dynamic.ads_config is not None
        context.discovers_clusters = True
        context.know("cluster", self._clusters)
        secrets = bootstrap.static_resources.secrets
        if secrets:
            from sidecar.config.tls_secrets import TlsCertificate

            certificates = [one.name for one in secrets if isinstance(one.value, TlsCertificate)]
            context.know("TLS certificate secret", certificates)
            context.know("validation context secret", [one.name for one in secrets if one.name not in certificates])
        check(message, context.refuse)
        return context

    def parse(self, message: Any, kind: str, name: str, build: Callable[[Node], T]) -> T:
        """What ``build`` makes of a message. Raises Refused with everything that is wrong with it."""
        context = self.context(message, kind, name)
        try:
            with context:
                built = build(Node(message, "", context))
        except ConfigurationError as error:
            raise Refused("; ".join(reason_of(problem) for problem in error.problems)) from None
        except Exception as error:
            _log.exception("%s %r cannot be read", kind, name)
            raise Refused(f"cannot be read: {error!r}") from None
        self.warn(context)
        return built

    def warn(self, context: Context) -> None:
        """Say what an operator should know, once."""
        for warning in context.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                _log.warning("%s", warning)

    async def judge(
        self, resource: DiscoveredResource, type_name: str, kind: str, build: Callable[[Node], T], pace: Pace
    ) -> T:
        """What ``build`` makes of a resource; a large one is judged beside the loop. Raises Refused."""

        def judged() -> T:
            return self.parse(self.unpack(resource.payload, type_name), kind, resource.name, build)

        now = pace.clock()
        if now - self._since > 1.0:
            self._since = now
            self._taken = 0
        self._taken += len(resource.payload.value)
        if self._taken > BULK:
            self._taken = 0
            self.on_bulk()
        if len(resource.payload.value) > LARGE:
            return await pace.aside(judged)
        await pace.breathe()
        return judged()

    def __repr__(self) -> str:
        return f"<Judge beside {len(self._clusters)} clusters>"


@contextmanager
def applying(kind: str, name: str) -> Iterator[None]:
    """Raise Refused for whatever goes wrong when a resource is put to use."""
    try:
        yield
    except Refused:
        raise
    except (ValueError, OSError) as error:
        raise Refused(str(error)) from None
    except Exception as error:
        _log.exception("%s %r cannot be applied", kind, name)
        raise Refused(f"cannot be applied: {error!r}") from None


def reason_of(problem: Any) -> str:
    """A problem without its source, which the rejection names."""
    place = f"{problem.path}: " if problem.path else ""
    to_do = f"; {problem.what_to_do}" if problem.what_to_do else ""
    return f"{place}{problem.problem}{to_do}"
