"""What a connection to an endpoint is for, as far as its TLS must know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class TransportSocketOptions:
    """What those who dial ask of TLS; connections with equal options serve the same requests, so pools are keyed by it.

    ``server_name`` is sent instead of the configured `sni` (`auto_sni`). ``subject_alt_names`` are those of which the
    certificate must have one, instead of the configured ones (`auto_san_validation`). ``protocols`` are offered by ALPN,
    best first, where the configuration names no `alpn_protocols`. Source: Envoy's `Network::TransportSocketOptions`.
    """

    server_name: str = ""
    subject_alt_names: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()


OFFERING_NOTHING: Final = TransportSocketOptions()
"""For those who do not speak HTTP."""

OFFERING_HTTP1: Final = TransportSocketOptions(protocols=("http/1.1",))
OFFERING_HTTP2: Final = TransportSocketOptions(protocols=("h2",))
OFFERING_BOTH: Final = TransportSocketOptions(protocols=("h2", "http/1.1"))
"""For pools of either protocol, and for one that leaves the choice to the endpoint (`auto_config`)."""
