"""What the agent asks of the control plane for one workload: over HTTPS, by the workload's own certificate."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Final

import aiohttp

from controlplane.nodeagent.svid import Svid, new_key, parse_svid
from controlplane.nodeagent.trust_bundle import TrustBundle, parse_bundle

WAIT: Final = 50.0  # seconds for which the control plane may keep us waiting for another bundle
_PATIENCE: Final = 15.0
_IDLE: Final = 60.0  # seconds for which the control plane keeps a connection for us that is not used, and a little less
_LONGEST_PAUSE: Final = 600.0
_LARGEST: Final = 8 << 20


class ControlPlaneError(Exception):
    """It cannot be reached, or refuses; the message says which and why. ``status`` is HTTP's, 0 without an answer;
    ``retry_after`` are the seconds until it wants to be asked again, 0 if it has not said.
    """

    def __init__(self, message: str, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class ControlPlane:
    """At ``server`` (https://HOST:PORT). `show` first: by what it is believed, and who we are. `close` at the end.

    One connection is kept, for a handshake costs the control plane more than what it is asked, until we are somebody else or
    believe others. What is asked while it is in use has a connection of its own.
    """

    def __init__(self, server: str) -> None:
        self.server = server.rstrip("/")
        self._svid: Svid | None = None
        self._bundle: TrustBundle | None = None
        self._kept: aiohttp.ClientSession | None = None
        self._kept_as: tuple[bytes, str] = (b"", "")
        self._turn = asyncio.Lock()

    def show(self, svid: Svid | None, bundle: TrustBundle) -> None:
        """Who asks from now on, and the roots that the control plane must have a certificate of."""
        self._svid, self._bundle = svid, bundle

    async def close(self) -> None:
        """Keep no connection."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.close()

    @property
    def is_busy(self) -> bool:
        """Whether something is asked over the connection that is kept: what is asked now has one of its own."""
        return self._turn.locked()

    async def renew(self, spiffe_id: str, lifetime: float | None) -> Svid:
        """A certificate for a new key, which only this process has. Raises ControlPlaneError."""
        key, request = new_key()
        body: dict[str, Any] = {"certificateSigningRequest": request}
        if lifetime is not None:
            body["lifetime"] = lifetime
        answer = await self._ask("POST", "/mizzen/v1/renew", body)
        try:
            svid = parse_svid(str(answer.get("certificateChain", "")).encode(), key)
        except ValueError as error:
            raise ControlPlaneError(f"{self.server} has answered with what is no certificate for us: {error}") from None
        if svid.spiffe_id != spiffe_id:
            raise ControlPlaneError(f"{self.server} has certified {svid.spiffe_id} instead of {spiffe_id}")
        return svid

    async def trust_bundle(
        self, trust_domain: str, have: str = "", *, wait: bool = True, as_anybody: bool = False
    ) -> TrustBundle | None:
        """The trust bundle; with ``have``, which says that this version is in use here, the next one when there is one, or
        None if there was none in the time that it waits. ``as_anybody`` asks without a certificate. Raises ControlPlaneError.
        """
        query = {"have": have} if have else None
        if query is not None and wait:
            query["wait"] = f"{WAIT:.0f}"
        answer = await self._ask(
            "GET",
            "/mizzen/v1/trust-bundle",
            query=query,
            patience=_PATIENCE + WAIT,
            turn=_PATIENCE,
            named=not as_anybody,
        )
        if not answer:
            return None
        try:
            bundle = parse_bundle(answer, trust_domain)
        except ValueError as error:
            raise ControlPlaneError(f"{self.server} has answered with a trust bundle that is none: {error}") from None
        return None if have and bundle.version == have else bundle

    async def jwt_svid(self, audience: list[str]) -> tuple[str, Any]:
        """A JWT-SVID for an audience, and what the control plane says of its end. Raises ControlPlaneError."""
        answer = await self._ask("POST", "/mizzen/v1/jwt-svids", {"audience": audience})
        token = answer.get("token")
        if not isinstance(token, str) or not token:
            raise ControlPlaneError(f"{self.server} has answered without a token")
        return token, answer.get("expiresAt")

    async def _ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: dict[str, str] | None = None,
        patience: float = _PATIENCE,
        turn: float = 0.0,
        named: bool = True,
    ) -> dict[str, Any]:
        def exchange(session: aiohttp.ClientSession) -> Coroutine[Any, Any, dict[str, Any]]:
            return self._exchange(session, method, path, body, query, patience)

        if not (named and await self._has_turn(turn)):
            async with self._session(self._svid if named else None, keep=False) as session:
                return await self._told(exchange(session), patience)
        try:
            return await self._told(self._over_kept(exchange), patience)
        finally:
            self._turn.release()

    async def _has_turn(self, seconds: float) -> bool:
        if not seconds and self._turn.locked():
            return False
        try:
            async with asyncio.timeout(max(seconds, 0.01)):
                return await self._turn.acquire()
        except TimeoutError:
            return False

    async def _over_kept(
        self, exchange: Callable[[aiohttp.ClientSession], Coroutine[Any, Any, dict[str, Any]]]
    ) -> dict[str, Any]:
        assert self._bundle is not None, "show comes first"
        shown = (self._bundle.roots, "" if self._svid is None else self._svid.serial)
        if shown != self._kept_as:
            await self.close()
        if self._kept is not None:
            try:
                return await self._asked(self._kept, exchange)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                pass  # it was closed while nobody asked: once more, by another
        self._kept, self._kept_as = self._session(self._svid, keep=True), shown
        return await self._asked(self._kept, exchange)

    async def _asked(
        self,
        session: aiohttp.ClientSession,
        exchange: Callable[[aiohttp.ClientSession], Coroutine[Any, Any, dict[str, Any]]],
    ) -> dict[str, Any]:
        try:
            return await exchange(session)
        except ControlPlaneError:
            raise
        except BaseException:  # whatever is on its way there is not the answer to the next question
            await self.close()
            raise

    def _session(self, svid: Svid | None, *, keep: bool) -> aiohttp.ClientSession:
        assert self._bundle is not None, "show comes first"
        tls = _context(svid, self._bundle)
        if keep:
            connector = aiohttp.TCPConnector(ssl=tls, limit=1, keepalive_timeout=_IDLE)
        else:
            connector = aiohttp.TCPConnector(ssl=tls, limit=1, force_close=True)
        return aiohttp.ClientSession(connector=connector, auto_decompress=False, trust_env=False)

    async def _told(self, asking: Coroutine[Any, Any, dict[str, Any]], patience: float) -> dict[str, Any]:
        try:
            return await asking
        except TimeoutError:
            raise ControlPlaneError(f"{self.server} does not answer within {patience:.0f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ControlPlaneError(f"cannot reach {self.server}: {error}") from None

    async def _exchange(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        body: Any,
        query: dict[str, str] | None,
        patience: float,
    ) -> dict[str, Any]:
        async with session.request(
            method,
            self.server + path,
            json=body,
            params=query,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=patience),
        ) as response:
            if response.status in (204, 304):
                return {}
            text = b""
            async for part in response.content.iter_chunked(1 << 16):
                text += part
                if len(text) > _LARGEST:
                    raise ControlPlaneError(f"{self.server} has answered with more than {_LARGEST} bytes")
        try:
            answer = json.loads(text)
        except ValueError:
            answer = {"message": text[:200].decode("utf-8", "replace")}
        if response.status >= 300:
            message = answer.get("message") if isinstance(answer, dict) else None
            after = response.headers.get("Retry-After", "")
            seconds = min(float(after), _LONGEST_PAUSE) if after.isascii() and after.isdigit() else 0.0
            raise ControlPlaneError(f"{self.server} refuses: {message or response.reason}", response.status, seconds)
        if not isinstance(answer, dict):
            raise ControlPlaneError(f"{self.server} has answered with something else than an object")
        return answer


def _context(svid: Svid | None, bundle: TrustBundle) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=bundle.roots.decode())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if svid is not None:
        # OpenSSL wants a path: one in memory, so that the key is on no disk for it.
        descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, svid.key + svid.chain)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    return context
