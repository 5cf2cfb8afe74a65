"""Stands for a filter whose configuration is discovered, and has not come: requests are not let past it.

Source: Envoy's "Extension configuration" (extension config discovery service).
"""

from __future__ import annotations

from typing import Any, Final

from sidecar.core.explanation import ENDS, Step
from sidecar.core.response_flags import BY_SHORT_NAME
from sidecar.filters.context import NamedFilter

_FLAG: Final = BY_SHORT_NAME["NFCF"]


class MissingConfigFilter(NamedFilter):
    """Answers everything with 500."""

    __slots__ = ()

    def on_request(self, stream: Any, end: bool) -> bool | None:
        answered: bool = stream.reply(500, details="", flags=_FLAG)
        return answered

    def rehearse(self, stream: Any) -> Step | None:
        """See ``HttpFilter``."""
        self.on_request(stream, True)
        return Step("http filter", self.name, ENDS, f"http filter {self.name}: its configuration has not come: 500")
