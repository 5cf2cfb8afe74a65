"""Mizzen's sidecar: a proxy that runs Envoy's configuration. ``Server`` starts one in a running event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidecar.server import Server

__all__ = ["Server", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Server":  # imported on first use: stages that are used alone do not load the whole stack
        from sidecar.server import Server

        return Server
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
