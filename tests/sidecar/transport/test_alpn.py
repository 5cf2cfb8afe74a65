"""ALPN: what is agreed on with clients, and what endpoints are offered."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.config.tls import UpstreamTlsContext
from sidecar.core.tls_options import (
    OFFERING_BOTH,
    OFFERING_HTTP1,
    OFFERING_HTTP2,
    OFFERING_NOTHING,
    TransportSocketOptions,
)
from tests.sidecar.transport.serving import (
    client_context,
    dial,
    downstream,
    exchange,
    in_thread,
    on_loop,
    originating,
    serving,
    upstream,
)


@pytest.mark.parametrize(("offered", "agreed"), [(["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), (["x"], "")])
@on_loop
async def test_alpn_takes_our_first_choice_or_none(offered: list[str], agreed: str) -> None:
    context = client_context()
    context.set_alpn_protocols(offered)
    async with serving(downstream(common={"alpn_protocols": ["h2", "http/1.1"]})) as server:
        assert await in_thread(exchange, server.port, context) == b"ping"
        assert server.connections[0].info.tls.application_protocol == agreed


@on_loop
async def test_the_protocols_that_are_offered() -> None:
    """Those of the configuration, else those of who dials, else those of the cluster; nothing for bare sockets."""
    configured = upstream(common={"alpn_protocols": ["acme/1,http/1.1"]})
    cases: tuple[tuple[UpstreamTlsContext, TransportSocketOptions | None, str], ...] = (
        (upstream(), None, "h2"),
        (upstream(), OFFERING_HTTP1, "http/1.1"),
        (upstream(), OFFERING_BOTH, "h2"),
        (upstream(), OFFERING_HTTP2, "h2"),
        (upstream(), OFFERING_NOTHING, ""),
        (configured, OFFERING_HTTP2, "http/1.1"),
        (configured, None, "http/1.1"),
    )
    async with serving(downstream(common={"alpn_protocols": ["h2", "http/1.1"]})) as server:
        tls = {config: originating(config, server.surroundings, OFFERING_HTTP2) for config in (upstream(), configured)}
        for config, options, agreed in cases * 2:
            connection, _ = await dial(tls[config], server.port, options=options)
            assert connection.get_extra_info("tls").application_protocol == agreed
        bridge = tls[upstream()].bridge()
        bare = tls[upstream()].connect(bridge)
        await asyncio.get_running_loop().create_connection(lambda: bare, "127.0.0.1", server.port)
        await bare.ready()
        assert bare.get_extra_info("tls").application_protocol == ""
        bridge.far.close()
