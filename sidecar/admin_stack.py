"""The composition root's part for the administration interface: loaded where the bootstrap has one."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from sidecar.admin.terminal import AdminTerminal, Answers, connection_manager_config
from sidecar.config.listener import FilterChain as FilterChainConfig
from sidecar.config.listener import Listener as ListenerConfig
from sidecar.config.network_filters import DirectResponse as DirectResponseConfig
from sidecar.config.network_filters import NetworkFilter
from sidecar.http.build import options_of
from sidecar.http.connection_manager import ConnectionManager
from sidecar.http.filter_chain import FilterChain
from sidecar.http.forwarding import compile_forwarding, compile_response_finish
from sidecar.http.local_reply import plain_reply
from sidecar.listener.connection_limits import ConnectionLimit
from sidecar.listener.listener import Listener
from sidecar.telemetry import tags
from sidecar.telemetry.groups.http2 import Http2CodecStats
from sidecar.telemetry.groups.http_connection_manager import connection_manager_stats
from sidecar.telemetry.groups.listener import ListenerStats, WorkerConnectionStats

if TYPE_CHECKING:
    from sidecar.stack import Stack

ADMIN_FILTER = NetworkFilter("admin", DirectResponseConfig(b""))
"""Stands in the admin listener's filter chain, whose terminal is made in another way."""

_LAST_ANSWERS = 1.0  # seconds


def admin_listener(stack: Stack, answers: Answers) -> Listener:
    """The listener of the administration interface, with a connection manager of its own behind it."""
    admin = stack.bootstrap.admin
    assert admin is not None and admin.address is not None
    config = connection_manager_config()
    terminal = AdminTerminal(answers, stack.worker)
    stats, of_listener = connection_manager_stats(stack.store, "admin", "admin")
    manager = ConnectionManager(
        stack.worker,
        options_of(config, 1 << 20),
        stats,
        of_listener.codes,
        terminal,
        FilterChain(()),
        terminal,
        compile_forwarding(config, stack.local_ip, b"", b""),
        compile_response_finish(config),
        stack.access_loggers(admin.access_log, "DownstreamEnd"),
        plain_reply,
        stack.request_lines,
    )
    manager.http2_stats = stack.store.shared(Http2CodecStats, "http2.")
    naming = tags.listener("admin")
    return Listener(
        ListenerConfig(
            "admin", admin.address, (FilterChainConfig((ADMIN_FILTER,)),), socket_options=admin.socket_options
        ),
        stack.worker,
        lambda chain, last, context: manager,
        stack.store.shared(ListenerStats, *naming),
        stack.store.shared(WorkerConnectionStats, *tags.worker(naming, stack.worker.number)),
        ConnectionLimit(),
        ConnectionLimit(),
    )


async def finish_answers(listener: Listener) -> None:
    """Let what is being answered leave; what is not read within a second is cut off."""
    listener.stop_accepting()
    until = time.monotonic() + _LAST_ANSWERS
    while time.monotonic() < until and any(
        _answering(connection)
        for chain in listener.chains
        if isinstance(chain.terminal, ConnectionManager)
        for connection in chain.terminal.connections
    ):
        await asyncio.sleep(0.005)


def _answering(connection: Any) -> bool:
    transport = connection.transport
    return not transport.is_closing() and (connection.streams() or transport.get_write_buffer_size())
