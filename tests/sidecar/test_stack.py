"""What a listener that cannot be made leaves behind: nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from sidecar.core.worker import Worker
from sidecar.server import load
from sidecar.stack import Stack
from sidecar.telemetry.store import StatsStore
from tests.sidecar.bootstraps import bootstrap, direct, http_listener

_TYPE = "type.googleapis.com/envoy.extensions.filters.http."


def test_a_listener_whose_log_cannot_be_opened_holds_no_dns_cache(tmp_path: Path) -> None:
    filters = [
        {
            "name": "names",
            "typed_config": {
                "@type": _TYPE + "dynamic_forward_proxy.v3.FilterConfig",
                "dns_cache_config": {"name": "outside"},
            },
        },
        {"name": "router", "typed_config": {"@type": _TYPE + "router.v3.Router"}},
    ]
    listener = http_listener("one", 0, [direct("")], log=str(tmp_path / "missing" / "log"), http_filters=filters)
    (config,) = load(None, orjson.dumps(bootstrap(listener)).decode())[0].static_resources.listeners
    empty = load(None, orjson.dumps(bootstrap()).decode())[0]

    async def main() -> None:
        stack = Stack(empty, Worker(asyncio.get_running_loop()), StatsStore())
        with pytest.raises(OSError, match="missing"):
            stack.listener(config)
        assert repr(stack.dns_caches) == "<DnsCaches >"

    asyncio.run(main())
