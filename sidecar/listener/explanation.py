"""Which listener and which filter chain a connection would come to, and why not the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sidecar.config.filter_chain_match import FilterChainMatch
from sidecar.core.address import Address
from sidecar.core.explanation import ENDS, PASSED_OVER, TAKEN, Step
from sidecar.core.question import Question
from sidecar.core.stream_info import ConnectionInfo
from sidecar.listener.directory import Directory
from sidecar.listener.filter_chain_match import conditions, is_local
from sidecar.listener.http_inspector import HttpInspector
from sidecar.listener.listener import Listener
from sidecar.listener.original_dst import OriginalDst
from sidecar.listener.sockets import addresses_of
from sidecar.listener.terminal import Chain
from sidecar.listener.tls_inspector import TlsInspector

_SAID: tuple[Callable[[ConnectionInfo], str], ...] = (
    lambda info: f"the destination's port is {info.local_address.port}",
    lambda info: f"the destination is {info.local_address.ip}",
    lambda info: f"the server name is {info.requested_server_name!r}" if info.requested_server_name
    else "there is no server name",
    lambda info: f"the transport protocol is {info.transport_protocol}",
    lambda info: f"the application protocols are {', '.join(info.application_protocols) or 'not known'}",
    lambda info: f"the direct source is {info.direct_remote_address.ip}",
    lambda info: f"the source is {'the same host' if is_local(info) else 'another host'}",
    lambda info: f"the source is {info.remote_address.ip}",
    lambda info: f"the source's port is {info.remote_address.port}",
)  # fmt: skip
"""What a connection says to each criterion, in the order of ``filter_chain_match``."""

_WANTED: tuple[Callable[[FilterChainMatch], str], ...] = (
    lambda match: f"destination_port {match.destination_port}",
    lambda match: f"prefix_ranges {', '.join(map(str, match.prefix_ranges))}",
    lambda match: f"server_names {', '.join(match.server_names)}",
    lambda match: f"transport_protocol {match.transport_protocol}",
    lambda match: f"application_protocols {', '.join(match.application_protocols)}",
    lambda match: f"direct_source_prefix_ranges {', '.join(map(str, match.direct_source_prefix_ranges))}",
    lambda match: f"source_type {match.source_type}",
    lambda match: f"source_prefix_ranges {', '.join(map(str, match.source_prefix_ranges))}",
    lambda match: f"source_ports {', '.join(map(str, match.source_ports))}",
)


def find_listener(
    listeners: Sequence[Listener], directory: Directory, destination: Address, direction: str
) -> tuple[Listener | None, list[Step]]:
    """The listener that a connection to ``destination`` comes to. One that captures connections (the listener filter
    `original_dst`) takes those that no other is bound for, and hands them to a listener of their address if it may.
    """
    steps: list[Step] = []
    bound = [one for one in listeners if one.config.bind_to_port]
    found = _listening(bound, destination, direction)
    captured = found is None
    if captured:
        capturing = [one for one in bound if _captures(one) and direction in ("", one.config.traffic_direction)]
        found = capturing[0] if len(capturing) == 1 else None
    steps += [_elsewhere(one, destination) for one in bound if one is not found]
    if found is None:
        text = f"no listener takes connections to {destination.text}"
        return None, [*steps, Step("listener", "", ENDS, text)]
    why = "takes what is captured" if captured else "takes it"
    steps.append(Step("listener", found.config.name, TAKEN, f"listener {found.config.name!r} {_where(found)}: {why}"))
    if captured and found.config.use_original_dst:
        other = directory.find(destination)
        if other is not None and other is not found:
            text = (
                f"listener {other.config.name!r} {_where(other)}: gets it from {found.config.name!r} (use_original_dst)"
            )
            steps.append(Step("listener", other.config.name, TAKEN, text))
            found = other
    return found, steps


def _elsewhere(listener: Listener, destination: Address) -> Step:
    name = listener.config.name
    text = f"listener {name!r} {_where(listener)}: is not where connections to {destination.text} come"
    return Step("listener", name, PASSED_OVER, text)


def _listening(listeners: Sequence[Listener], destination: Address, direction: str) -> Listener | None:
    exact, wildcards = [], []
    for listener in listeners:
        if direction and listener.config.traffic_direction not in (direction, "UNSPECIFIED"):
            continue
        for text in listening_on(listener):
            if text == destination.text:
                exact.append(listener)
            elif text in (f"0.0.0.0:{destination.port}", f"[::]:{destination.port}"):
                wildcards.append(listener)
    return next(iter((*exact, *wildcards)), None)


def _where(listener: Listener) -> str:
    return f"on {', '.join(listening_on(listener))}"


def listening_on(listener: Listener) -> list[str]:
    """Where it listens, or will: the system's choice of a port is known once it is bound."""
    bound = [address.text for address in listener.local_addresses]
    return bound or [str(address) for address, _ in addresses_of(listener.config)]


def explain_chains(listener: Listener, info: ConnectionInfo) -> tuple[Chain | None, list[Step]]:
    """The filter chain that ``info`` comes to: the listener's own lookup says which; the criteria are asked of each other
    chain alone, in their order, for the first that does not hold.
    """
    found = listener.find_chain(info)
    steps = [_passed_over(chain, info) for chain in listener.chains if chain is not found]
    if found is None:
        text = f"no filter chain of listener {listener.config.name!r} takes the connection: it is closed"
        return None, [*steps, Step("filter chain", "", ENDS, text)]
    by_default = found.config is listener.config.default_filter_chain
    why = "no other takes the connection, and it is the default" if by_default else "takes the connection"
    return found, [*steps, Step("filter chain", found.name, TAKEN, f"filter chain {_name(found)}: {why}")]


def _passed_over(chain: Chain, info: ConnectionInfo) -> Step:
    return Step(
        "filter chain", chain.name, PASSED_OVER, f"filter chain {_name(chain)}: passed over: {_why(chain, info)}"
    )


def _why(chain: Chain, info: ConnectionInfo) -> str:
    match = chain.config.filter_chain_match
    for level, holds in conditions(match):
        if not holds(info):
            return f"{_SAID[level](info)}, and it wants {_WANTED[level](match)}"
    return "it would take the connection, and another is more specific"


def _name(chain: Chain) -> str:
    return repr(chain.name) if chain.name else "without a name"


def _captures(listener: Listener) -> bool:
    return any(isinstance(placed, OriginalDst) for placed, _ in listener.filters)


def inspected(listener: Listener, question: Question, info: ConnectionInfo) -> None:
    """Let ``info`` say what the listener's filters would find out about the connection: a listener without the TLS inspector
    does not know TLS from plain text.
    """
    for placed, _ in listener.filters:
        if question.tls and isinstance(placed, TlsInspector):
            info.transport_protocol = "tls"
            info.requested_server_name = question.server_name
            info.application_protocols = question.alpn
        elif not question.tls and isinstance(placed, HttpInspector):
            info.application_protocols = (question.plain_protocol,)
