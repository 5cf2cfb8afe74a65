"""From what proxies refuse, or cannot be given, to the resources that caused it. Part of the composition: it joins xDS, pilot
and statuses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

from controlplane.model.generation import Translator
from controlplane.model.proxy import Proxy
from controlplane.model.resource import ResourceKey
from controlplane.xds.type_urls import LISTENER

log = logging.getLogger("controlplane")


class Refusals:
    """Implements the hub's `Verdicts`; ``on_change`` gets all refusals, in words, by resource."""

    def __init__(
        self, translator: Translator, on_change: Callable[[Mapping[ResourceKey, Collection[str]]], None]
    ) -> None:
        self._translator = translator
        self._on_change = on_change
        self._by_proxy: dict[tuple[object, str], list[tuple[frozenset[ResourceKey], str]]] = {}
        self._left_out: dict[object, list[tuple[str, Collection[ResourceKey]]]] = {}

    def judged(self, stream: object, proxy: Proxy, type_url: str, errors: Mapping[str, str]) -> None:
        """See Verdicts."""
        found = [
            (
                frozenset(self._translator.causes(proxy, type_url, name)),
                f"{proxy.name}.{proxy.namespace} refuses {name}: {error}",
            )
            for name, error in errors.items()
        ]
        if found:
            self._by_proxy[stream, type_url] = found
        else:
            self._by_proxy.pop((stream, type_url), None)
        self._tell()

    def told(self, stream: object, proxy: Proxy, type_url: str) -> None:
        """See Verdicts. What was left out of a proxy's listeners is known when they are made."""
        if type_url != LISTENER:
            return
        found = [
            (f"{proxy.name}.{proxy.namespace}: {words}", causes) for words, causes in self._translator.left_out(proxy)
        ]
        if found == self._left_out.get(stream, []):
            return
        for words, _ in found:
            log.warning("%s", words)
        self._left_out[stream] = found
        self._tell()

    def left(self, stream: object) -> None:
        """See Verdicts."""
        if self._left_out.pop(stream, None):
            self._tell()
        gone = [key for key in self._by_proxy if key[0] is stream]
        for key in gone:
            del self._by_proxy[key]
        if gone:
            self._tell()

    def _tell(self) -> None:
        found: dict[ResourceKey, list[str]] = {}
        for causes, words in (one for each in self._by_proxy.values() for one in each):
            for key in causes:
                found.setdefault(key, []).append(words)
        for words, keys in (one for each in self._left_out.values() for one in each):
            for key in keys:
                found.setdefault(key, []).append(words)
        self._on_change(found)
