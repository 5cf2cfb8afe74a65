"""An example of a filter of one's own: requests need an API key, which is checked while the request waits.

Configuration:

    http_filters:
    - name: api-key
      typed_config:
        "@type": type.googleapis.com/xds.type.v3.TypedStruct
        type_url: type.googleapis.com/mizzen.filters.api_key
        value:
          keys: {s3cret: alice, t0psecret: bob}
          header: x-api-key
          pause_timeout: 2s

and, in the package that has the class, the entry point:

    [options.entry_points]
    mizzen.filters =
        api_key = examples.filters.api_key:ApiKeyFilter
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from sidecar.filters import PAUSE, FilterStream, HttpFilter


class ApiKeyFilter(HttpFilter):
    """Answers 401 without a key and 403 with a wrong one; else tells the upstream who asks, in ``x-consumer``."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.keys = {key.encode(): consumer.encode() for key, consumer in config["keys"].items()}
        self.header = config.get("header", "x-api-key").lower().encode()
        self.tasks: set[asyncio.Task[None]] = set()

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Take the key out of the request, and hold the request while somebody looks it up."""
        key = stream.request.get(self.header)
        stream.request.remove_all([self.header, b"x-consumer"])
        if key is None:
            return stream.reply(401, b"an API key is required\n", details="api_key_missing")
        task = asyncio.get_running_loop().create_task(self.check(stream, key))
        self.tasks.add(task)  # the loop itself keeps no task alive
        task.add_done_callback(self.tasks.discard)
        return PAUSE

    async def check(self, stream: FilterStream, key: bytes) -> None:
        """Let the request go on, or answer it."""
        consumer = await self.look_up(key)
        if consumer is None:
            stream.reply(403, b"this API key is not known\n", details="api_key_unknown")
        else:
            stream.request.set(b"x-consumer", consumer)
            stream.resume_request()

    async def look_up(self, key: bytes) -> bytes | None:
        """Who has this key. A real filter would ask a store here; so this one lets others run, too."""
        await asyncio.sleep(0)
        return self.keys.get(key)

    def on_response(self, stream: FilterStream, end: bool) -> bool | None:
        """Nobody is to keep what was for one consumer only."""
        if stream.response is not None:
            stream.response.set(b"cache-control", b"private")
        return None
