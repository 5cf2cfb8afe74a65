"""What a connection to an endpoint is for, as far as its transport socket must know it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from sidecar.core.address import Address
from sidecar.core.head import RequestHead


@dataclass(frozen=True, slots=True)
class TransportSocketOptions:
    """What those who dial ask of TLS; connections with equal options serve the same requests, so pools are keyed by it.

    ``server_name`` is sent instead of the configured `sni` (`auto_sni`). ``subject_alt_names`` are those of which the
    certificate must have one, instead of the configured ones (`auto_san_validation`). ``protocols`` are offered by ALPN,
    best first, where the configuration names no `alpn_protocols`; ``instead`` whatever it names. ``proxied`` are the source and
    the destination of the downstream connection, for a PROXY header; None where nobody needs them, or there is none.
    Source: Envoy's `Network::TransportSocketOptions`.
    """

    server_name: str = ""
    subject_alt_names: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    proxied: tuple[Address, Address] | None = None

    def offering(self, protocols: tuple[str, ...]) -> TransportSocketOptions:
        """The same for who speaks these."""
        return replace(self, protocols=protocols)


OFFERING_NOTHING: Final = TransportSocketOptions()
"""For those who do not speak HTTP."""

OFFERING_HTTP1: Final = TransportSocketOptions(protocols=("http/1.1",))
OFFERING_HTTP2: Final = TransportSocketOptions(protocols=("h2",))
OFFERING_BOTH: Final = TransportSocketOptions(protocols=("h2", "http/1.1"))
"""For pools of either protocol, and for one that leaves the choice to the endpoint (`auto_config`)."""

APPLICATION_PROTOCOLS: Final = "envoy.network.application_protocols"
"""The key of the object in the filter state that says what is offered by ALPN, whatever the configuration names."""


class ApplicationProtocols(tuple[str, ...]):
    """That object: names of protocols, best first."""

    __slots__ = ()

    plain = None
    """As Envoy's, it has no text for access logs."""


def compile_names(
    auto_sni: bool, auto_san_validation: bool, override_auto_sni_header: bytes
) -> Callable[[RequestHead], TransportSocketOptions] | None:
    """What TLS takes from a request; None where it takes nothing.

    Called with the request as the route has made it, before `auto_host_rewrite`. An address is no server name; a header
    in lower case, where the request has it with a value, stands in the host's place. Names are in lower case, as equal
    ones share connections. Source: `UpstreamHttpProtocolOptions`, Envoy's router.
    """
    if not (auto_sni or auto_san_validation):
        return None

    @lru_cache(maxsize=1024)
    def named(value: bytes) -> TransportSocketOptions:
        host, is_address = _host(value)
        return TransportSocketOptions(
            host if auto_sni and not is_address else "",
            (host,) if auto_san_validation and host else (),
        )

    def names(request: RequestHead) -> TransportSocketOptions:
        values = request.get_all(override_auto_sni_header)
        return named((values[0] if values else b"") or request.authority)

    return names


def _host(authority: bytes) -> tuple[str, bool]:
    """Without its port and brackets, and whether it is an address."""
    text = authority.decode("latin-1").lower()
    if text[:1] == "[":
        host = text[1:].partition("]")[0]
    else:
        host, colon, port = text.rpartition(":")
        if not colon or not (port.isdecimal() or not port):
            host = text
    try:
        ip_address(host)
    except ValueError:
        return host, False
    return host, True
