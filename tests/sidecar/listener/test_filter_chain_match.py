from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.address import CidrRange
from sidecar.config.filter_chain_match import FilterChainMatch
from sidecar.core.address import Address
from sidecar.core.stream_info import ConnectionInfo
from sidecar.listener.filter_chain_match import compile_filter_chains

NAMES = ("a.example.com", ".example.com", ".com", "b.example.com", "com")
RANGES: tuple[CidrRange, ...] = tuple(
    map(ip_network, ("10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "127.0.0.0/8", "::/0", "fd00::/8", "::1/128"))
)
PORTS = (1, 2, 80)
ADDRESSES = ("10.1.1.1", "10.1.2.2", "10.2.2.2", "127.0.0.1", "192.0.2.1", "fd00::1", "::1", "2001:db8::1")


def several(values: Sequence[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


matches = st.builds(
    FilterChainMatch,
    destination_port=st.sampled_from((None, *PORTS)),
    prefix_ranges=several(RANGES),
    direct_source_prefix_ranges=several(RANGES),
    source_type=st.sampled_from(("ANY", "ANY", "SAME_IP_OR_LOOPBACK", "EXTERNAL")),
    source_prefix_ranges=several(RANGES),
    source_ports=several(PORTS),
    server_names=several(NAMES),
    transport_protocol=st.sampled_from(("", "", "tls", "raw_buffer")),
    application_protocols=several(("h2", "http/1.1")),
)


def _info(local: Address, direct: Address, remote: Address, name: str, protocol: str, alpn: tuple[str, ...]
          ) -> ConnectionInfo:  # fmt: skip
    info = ConnectionInfo(1, local, direct, 0.0)
    info.remote_address = remote
    info.requested_server_name = name
    info.transport_protocol = protocol
    info.application_protocols = alpn
    return info


addresses = st.one_of(
    st.builds(Address, st.sampled_from(ADDRESSES), st.sampled_from((*PORTS, 9))), st.just(Address(None, 0, "/socket"))
)
connections = st.builds(
    _info,
    addresses,
    addresses,
    addresses,
    st.sampled_from(("", "a.example.com", "c.example.com", "x.y.example.com", "example.com", "other.com", "com", "x.")),
    st.sampled_from(("tls", "raw_buffer")),
    st.sampled_from(((), ("h2",), ("http/1.1", "h2"), ("spdy",))),
)


def pruned(chains: list[FilterChainMatch], info: ConnectionInfo) -> FilterChainMatch | None:
    """Envoy's description, literally: at each step only the chains with the most specific value that holds stay."""

    def prune(scores: Callable[[FilterChainMatch], list[float | None]]) -> None:
        best = [max((score for score in scores(chain) if score is not None), default=None) for chain in chains]
        held = [score for score in best if score is not None]
        chains[:] = [chain for chain, score in zip(chains, best, strict=True) if held and score == max(held)]

    def by_range(ranges: tuple[CidrRange, ...], address: Address) -> list[float | None]:
        parsed = address.parsed or ip_network("255.255.255.255/32").network_address
        inside = [float(network.prefixlen) for network in ranges if parsed in network]
        return [*inside] if ranges else [-1]

    def by_name(names: tuple[str, ...]) -> list[float | None]:
        name = info.requested_server_name
        scores: list[float | None] = [] if names else [-1]
        for wanted in names:
            if wanted == name:
                scores.append(1000)
            elif wanted.startswith(".") and name.endswith(wanted) and len(name) > len(wanted):
                scores.append(len(wanted))
        return scores

    def by_protocols(wanted: tuple[str, ...]) -> list[float | None]:
        offered = info.application_protocols
        return [-float(offered.index(each)) for each in wanted if each in offered] if wanted else [-100]

    def by_value(wanted: object, value: object, nothing: object) -> list[float | None]:
        return [0] if wanted == nothing else [1] if wanted == value else []

    local = info.local_address.port if info.local_address.ip is not None else -1
    remote = info.remote_address.port if info.remote_address.ip is not None else -1
    parsed = info.remote_address.parsed
    inside = parsed is None or parsed.is_loopback or info.remote_address.ip == info.local_address.ip
    kind = "SAME_IP_OR_LOOPBACK" if inside else "EXTERNAL"
    prune(lambda chain: by_value(chain.destination_port, local, None))
    prune(lambda chain: by_range(chain.prefix_ranges, info.local_address))
    prune(lambda chain: by_name(chain.server_names))
    prune(lambda chain: by_value(chain.transport_protocol, info.transport_protocol, ""))
    prune(lambda chain: by_protocols(chain.application_protocols))
    prune(lambda chain: by_range(chain.direct_source_prefix_ranges, info.direct_remote_address))
    prune(lambda chain: by_value(chain.source_type, kind, "ANY"))
    prune(lambda chain: by_range(chain.source_prefix_ranges, info.remote_address))
    prune(lambda chain: [1] if remote in chain.source_ports else [] if chain.source_ports else [0])
    return chains[0] if chains else None


@given(st.lists(matches, min_size=1, max_size=8, unique=True), connections)
def test_lookups_agree_with_pruning(chains: list[FilterChainMatch], info: ConnectionInfo) -> None:
    found = compile_filter_chains([(chain, chain) for chain in chains])(info)
    assert found == pruned(list(chains), info)


def test_the_default_is_for_connections_that_match_nothing() -> None:
    info = _info(Address("10.0.0.1", 80), Address("10.0.0.2", 5), Address("10.0.0.2", 5), "", "raw_buffer", ())
    chains = [(FilterChainMatch(destination_port=80, transport_protocol="tls"), "tls"), (FilterChainMatch(), "any")]
    assert compile_filter_chains(chains, "default")(info) == "default"  # the port is decided, and there is no way back
    assert compile_filter_chains(chains)(info) is None
    assert compile_filter_chains([], "default")(info) == "default"
    info.transport_protocol = "tls"
    assert compile_filter_chains(chains, "default")(info) == "tls"


def test_server_names_are_compared_without_case() -> None:
    info = _info(Address("10.0.0.1", 80), Address("10.0.0.2", 5), Address("10.0.0.2", 5), "a.example.com", "tls", ())
    chains = [(FilterChainMatch(server_names=("A.Example.COM",)), "exact")]
    assert compile_filter_chains(chains)(info) == "exact"
