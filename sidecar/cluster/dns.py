"""Names to addresses, for DNS clusters: c-ares, which reads /etc/hosts first and applies the search domains."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from sidecar.config.dns import DnsSettings

_NO_DATA = 1
_NO_NAME = 4
_TIMED_OUT = 12
_FAMILIES = {
    "AUTO": (socket.AF_INET6, socket.AF_INET),
    "V4_PREFERRED": (socket.AF_INET, socket.AF_INET6),
    "V4_ONLY": (socket.AF_INET,),
    "V6_ONLY": (socket.AF_INET6,),
    "ALL": (socket.AF_UNSPEC,),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a lookup. `addresses` are IP addresses as text; `ttl` is the smallest one's, in seconds, or 0.

    `failed`: nobody could say. A name that does not exist, or has no such address, is an answer without addresses.
    `details` is why there are none, in Envoy's words.
    """

    addresses: tuple[str, ...] = ()
    ttl: int = 0
    failed: bool = False
    details: str = ""


FAILED = Answer(failed=True)


class Resolver(Protocol):
    """Looks names up and calls back, later and once, unless it is closed before."""

    def resolve(self, name: str, lookup_family: str, done: Callable[[Answer], None]) -> None: ...


class ResolverStats(Protocol):
    """Statistics below `dns.cares.`, under Envoy's names."""

    get_addr_failure: int
    not_found: int
    pending_resolutions: int
    resolve_total: int
    timeouts: int


class DnsResolver:
    """The system's resolver configuration, or the servers that the settings name. One serves many clusters.

    `timeout` (seconds, of the first try) and `tries` are Envoy's defaults. A name that is looked up in both families,
    one after the other, counts for each.
    """

    __slots__ = ("_loop", "_settings", "_stats", "_timeout", "_tries", "_channel", "_tasks")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: DnsSettings,
        stats: ResolverStats,
        timeout: float = 5.0,
        tries: int = 4,
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._timeout = timeout
        self._tries = tries
        self._stats = stats
        self._channel: Any = None
        self._tasks: set[asyncio.Task[None]] = set()

    def resolve(self, name: str, lookup_family: str, done: Callable[[Answer], None]) -> None:
        """Look `name` up; `lookup_family` as in `Cluster.DnsLookupFamily`."""
        task = self._loop.create_task(self._resolve(name, lookup_family, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Forget what is under way, and let go of the sockets."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def _resolve(self, name: str, lookup_family: str, done: Callable[[Answer], None]) -> None:
        answer = FAILED
        for family in _FAMILIES[lookup_family]:
            answer = await self._ask(name, family)
            if answer.addresses:
                break
        done(answer)

    async def _ask(self, name: str, family: int) -> Answer:
        from aiodns.error import DNSError

        stats = self._stats
        stats.resolve_total += 1
        stats.pending_resolutions += 1
        try:
            result = await self._open().getaddrinfo(name, family=family, type=socket.SOCK_STREAM)
        except DNSError as error:
            if error.args[0] in (_NO_DATA, _NO_NAME):
                stats.not_found += 1
                return Answer(details=f"cares_norecords:{error.args[1]}")
            if error.args[0] == _TIMED_OUT:
                stats.timeouts += 1
            else:
                stats.get_addr_failure += 1
            return Answer(failed=True, details=f"cares_failure:{error.args[1]}")
        except UnicodeError:  # it is nothing that could be asked for
            stats.get_addr_failure += 1
            return Answer(failed=True, details="cares_failure:Misformatted domain name")
        finally:
            stats.pending_resolutions -= 1
        addresses = dict.fromkeys(node.addr[0].decode() for node in result.nodes)
        return Answer(tuple(addresses), min((node.ttl for node in result.nodes), default=0))

    def _open(self) -> Any:
        """The c-ares channel, made (and its library loaded) when the first name is looked up."""
        if self._channel is None:
            import aiodns
            import pycares

            settings = self._settings
            flags = pycares.ARES_FLAG_USEVC if settings.use_tcp_for_dns_lookups else 0
            flags |= pycares.ARES_FLAG_NOSEARCH if settings.no_default_search_domain else 0
            options: dict[str, Any] = {"flags": flags} if flags else {}
            servers = [str(server) for server in settings.resolvers] or None
            self._channel = aiodns.DNSResolver(servers, self._loop, timeout=self._timeout, tries=self._tries, **options)
        return self._channel

    def __repr__(self) -> str:
        servers = ", ".join(map(str, self._settings.resolvers)) or "the system's servers"
        return f"<DnsResolver {servers}, {len(self._tasks)} under way>"
