"""/listeners: the addresses that are bound. Source: `envoy.admin.v3.Listeners`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sidecar.admin.clusters import address_json
from sidecar.admin.context import ListenerView
from sidecar.admin.json_text import json_chunks
from sidecar.admin.page import JSON, Page, text


def listeners_page(listeners: Sequence[ListenerView], parameters: dict[str, str]) -> Page:
    """`format=json` gives JSON, anything else text."""
    if parameters.get("format") != "json":
        lines = (f"{listener.config.name}::{a.text}\n" for listener in listeners for a in listener.local_addresses)
        return text("".join(lines))
    statuses = [_status(listener) for listener in listeners if listener.local_addresses]
    return Page(200, JSON, json_chunks({"listener_statuses": statuses} if statuses else {}))


def _status(listener: ListenerView) -> dict[str, Any]:
    first, *more = map(address_json, listener.local_addresses)
    status: dict[str, Any] = {"name": listener.config.name, "local_address": first}
    if more:
        status["additional_local_addresses"] = more
    return status
