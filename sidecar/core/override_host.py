"""The host that a request asks for itself, past the load balancing policy: a session's, say."""

from __future__ import annotations

from typing import NamedTuple


class OverrideHost(NamedTuple):
    """`address` as text, `1.2.3.4:80`; `strict` where no other host will do."""

    address: str
    strict: bool = False


OVERRIDE_HOST = "override_host"
"""The key in ``stream.data`` of the `OverrideHost` that a filter wants for the request."""
