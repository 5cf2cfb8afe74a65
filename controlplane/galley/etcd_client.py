"""etcd's v3 API through its JSON gateway: calls and streams, over whichever endpoint answers.
https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/

Bytes are base64 and 64-bit numbers are text there; what is 0 or empty is left out.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import socket
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import aiohttp
import orjson

from controlplane.galley.etcd_url import EtcdUrl
from controlplane.model.store import Unavailable

_log = logging.getLogger(__name__)

_ROUNDS: Final = 2
"""So often is each endpoint asked before a call is given up."""

_AT_ONCE: Final = 64
"""So many calls are under way at once; others wait. Streams are not among them."""

_OUT_OF_RANGE: Final = 11
_UNAUTHENTICATED: Final = 16
_PASSING: Final = frozenset({8, 13, 14})
"""gRPC codes of what may be otherwise at another endpoint, or soon: no leader, a request that took too long, no space."""

_STALE_TOKEN: Final = ("auth: revision in header is old", "auth: invalid auth token", "user name is empty")


class OutOfRange(Exception):
    """A revision that was compacted away, or has not been yet."""


class Refused(Exception):
    """etcd's own error, with gRPC's code of it: the same everywhere and every time."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class _Passing(Exception):
    """An attempt failed. ``unsent`` says that nothing of it can have been done."""

    def __init__(self, message: str, unsent: bool = False) -> None:
        super().__init__(message)
        self.unsent = unsent


class EtcdClient:
    """One connection pool to a cluster. All calls go to one endpoint, until that one fails."""

    def __init__(self, url: EtcdUrl) -> None:
        self.url = url
        self.closed = False
        self._current = 0
        self._token = ""
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=url.tls if url.tls is not None else True),
            timeout=aiohttp.ClientTimeout(total=url.timeout, sock_connect=min(url.timeout, 2.0)),
            json_serialize=lambda value: orjson.dumps(value).decode(),
            trust_env=False,
        )

    async def close(self) -> None:
        self.closed = True
        await self._session.close()

    async def call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A call that may be repeated without harm. Raises Unavailable, OutOfRange or Refused."""
        answer, _ = await self.call_once(path, body)
        return answer

    async def call_once(self, path: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """A call, and whether an attempt before may have been done as well, because its answer was lost."""
        doubtful = False
        failure = "no endpoint"
        for attempt in range(_ROUNDS * len(self.url.endpoints)):
            if attempt and attempt % len(self.url.endpoints) == 0:
                await asyncio.sleep(0.1)
            endpoint = self._endpoint()
            try:
                return await self._attempt(endpoint, path, body), doubtful
            except _Passing as error:
                doubtful = doubtful or not error.unsent
                failure = f"{endpoint}: {error}"
                self._leave(endpoint, failure)
        raise Unavailable(f"the store {self.url} cannot be reached ({failure})")

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The answers of a call that has many. Raises Unavailable when it breaks off, whatever the reason."""
        endpoint = self._endpoint()
        try:
            async with self._post(
                endpoint, path, body, timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0), stream=True
            ) as response:
                if response.status != 200:
                    await self._judge(response.status, await response.read())
                _notice_dead_peer(response)
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        answer = orjson.loads(line)
                        if "error" in answer:
                            raise _Passing(str(answer["error"]))
                        yield answer["result"]
            raise _Passing("the stream has ended")
        except (_Passing, aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            if self.closed:
                raise Unavailable(f"the store {self.url} is closed") from None
            self._leave(endpoint, str(error) or type(error).__name__)
            raise Unavailable(
                f"the store {self.url} has broken off at {endpoint} ({error or type(error).__name__})"
            ) from None

    def _endpoint(self) -> str:
        if self.closed:
            raise Unavailable(f"the store {self.url} is closed")
        return self.url.endpoints[self._current % len(self.url.endpoints)]

    def _leave(self, endpoint: str, why: str) -> None:
        """Go on to the next endpoint, unless somebody has gone on already."""
        if endpoint == self.url.endpoints[self._current % len(self.url.endpoints)]:
            self._current += 1
            _log.info("etcd: %s", why)

    def _post(
        self, endpoint: str, path: str, body: Mapping[str, Any], stream: bool = False, **options: Any
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        headers = {"Authorization": self._token} if self._token else {}
        if stream:
            headers["Grpc-Metadata-hasleader"] = (
                "true"  # a member that has lost its cluster says so, and does not stay silent
            )
        if self.url.server_name:
            options["server_hostname"] = self.url.server_name
        return self._session.post(f"{endpoint}/v3/{path}", json=body, headers=headers, **options)

    async def _attempt(self, endpoint: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        for last in (False, True):
            if self.url.user and not self._token:
                self._token = await self._log_in(endpoint)
            try:
                async with self._room, self._post(endpoint, path, body) as response:
                    status, data = response.status, await response.read()
            except aiohttp.ClientConnectorError as error:
                raise _Passing(str(error), unsent=True) from None
            except (aiohttp.ClientError, OSError) as error:
                raise _Passing(str(error) or type(error).__name__) from None
            except TimeoutError:
                raise _Passing(f"no answer within {self.url.timeout:g} s") from None
            try:
                return await self._judge(status, data)
            except Refused as refused:
                stale = refused.code == _UNAUTHENTICATED or any(text in str(refused) for text in _STALE_TOKEN)
                if last or not stale or not self.url.user:
                    raise
                self._token = ""
        raise AssertionError("the second attempt returns or raises")

    async def _judge(self, status: int, data: bytes) -> dict[str, Any]:
        try:
            answer = orjson.loads(data)
        except ValueError:
            raise _Passing(
                f"HTTP status {status}, and no JSON: is this an etcd of 3.4 or later?", unsent=status == 404
            ) from None
        if status == 200:
            return dict(answer)
        code, message = int(answer.get("code", 0)), str(answer.get("message") or answer.get("error"))
        if code == _OUT_OF_RANGE:
            raise OutOfRange(message)
        if code in _PASSING or status >= 500:
            raise _Passing(message)
        raise Refused(message, code)

    async def _log_in(self, endpoint: str) -> str:
        body = {"name": self.url.user, "password": self.url.password}
        try:
            async with self._session.post(f"{endpoint}/v3/auth/authenticate", json=body) as response:
                return str((await self._judge(response.status, await response.read()))["token"])
        except Refused as refused:
            raise Unavailable(f"the store {self.url} refuses user {self.url.user!r}: {refused}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _Passing(str(error) or type(error).__name__, unsent=True) from None


def _notice_dead_peer(response: aiohttp.ClientResponse) -> None:
    """Have the kernel ask whether the other side is still there: a watch says nothing for hours when nothing changes."""
    connection = response.connection
    channel = connection.transport.get_extra_info("socket") if connection and connection.transport else None
    if channel is not None:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def text(value: bytes) -> str:
    """Bytes as the gateway takes them."""
    return base64.b64encode(value).decode()


def raw(value: str) -> bytes:
    """Bytes as the gateway gives them."""
    return base64.b64decode(value)
