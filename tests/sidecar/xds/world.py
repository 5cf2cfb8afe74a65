"""A management server that answers by itself: it has a world of resources, and says what is asked for and what changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sidecar.xds.resource_types import CLUSTER, LISTENER
from tests.sidecar.xds.server import Asked, Conversation, XdsServer, delta, response

_ALL = "*"


class World(XdsServer):
    """``refused`` are nonces of responses that were not accepted, each with the reason."""

    def __init__(self, resources: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        XdsServer.__init__(self, self._answers)
        self.resources: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, int] = {}
        self.refused: dict[str, str] = {}
        self.wanted: dict[tuple[int, str], set[str]] = {}
        self.said: dict[tuple[int, str], str] = {}  # the last nonce that waits for its acknowledgement
        for type_url, named in (resources or {}).items():
            self.resources[type_url] = dict(named)
            self.versions[type_url] = 1

    @property
    def is_settled(self) -> bool:
        """Whether everything that was said on the streams that are open has been answered."""
        open_streams = {conversation.number for conversation in self.conversations if conversation.open}
        return bool(open_streams) and not any(number in open_streams for number, _ in self.said)

    async def settled(self, requests: int = 0, timeout: float = 25.0) -> list[str]:
        """The transcript, when everything is answered and there are so many requests in it."""
        await self.until(lambda: self.is_settled and len(self.asked) >= requests, timeout)
        return [asked.line() for asked in self.asked]

    async def set(self, type_url: str, changed: Mapping[str, Any], removed: Iterable[str] = ()) -> None:
        """Change the world, and tell all who want to know."""
        named = self.resources.setdefault(type_url, {})
        named.update(changed)
        gone = [name for name in removed if named.pop(name, None) is not None]
        self.versions[type_url] = self.versions.get(type_url, 0) + 1
        for conversation in self.conversations:
            wanted = self.wanted.get((conversation.number, type_url))
            if not conversation.open or wanted is None:
                continue
            everything = _ALL in wanted
            if conversation.is_delta:
                mine = {name: one for name, one in changed.items() if everything or name in wanted}
                mine_gone = [name for name in gone if everything or name in wanted]
                if mine or mine_gone:
                    await conversation.send(
                        self._noted(conversation, delta(type_url, self._version(type_url), mine, mine_gone))
                    )
            else:
                await conversation.send(self._noted(conversation, self._whole(type_url, wanted)))

    def _version(self, type_url: str) -> str:
        return str(self.versions.get(type_url, 0))

    def _whole(self, type_url: str, wanted: set[str]) -> Any:
        named = self.resources.get(type_url, {})
        return response(
            type_url, self._version(type_url), *(one for name, one in named.items() if _ALL in wanted or name in wanted)
        )

    def _noted(self, conversation: Conversation, message: Any) -> Any:
        conversation.nonces += 1
        message.nonce = f"{message.type_url.rpartition('.')[2]}-{conversation.nonces}"
        self.said[conversation.number, message.type_url] = message.nonce
        return message

    def _answers(self, conversation: Conversation, asked: Asked) -> list[Any]:
        message = asked.message
        type_url = message.type_url
        key = (conversation.number, type_url)
        first = key not in self.wanted
        if message.response_nonce:
            if message.HasField("error_detail"):
                self.refused[message.response_nonce] = message.error_detail.message
            if self.said.get(key) == message.response_nonce:
                del self.said[key]
        before = self.wanted.get(key, set())
        if asked.is_delta:
            fresh = set(message.resource_names_subscribe)
            if first and not fresh:
                fresh = {_ALL}
            self.wanted[key] = (before | fresh) - set(message.resource_names_unsubscribe)
            if not fresh:
                return []
            named = self.resources.get(type_url, {})
            known = message.initial_resource_versions
            found = {name: one for name, one in named.items() if _ALL in fresh or name in fresh}
            missing = [name for name in sorted({*fresh, *known} - {_ALL}) if name not in named]
            return [self._noted(conversation, delta(type_url, self._version(type_url), found, missing))]
        names = set(message.resource_names) or ({_ALL} if first or type_url in (CLUSTER, LISTENER) else set())
        self.wanted[key] = names
        if not first and names <= before:
            return []
        return [self._noted(conversation, self._whole(type_url, names))]
