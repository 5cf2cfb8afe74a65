"""Where issuers of tokens have their keys, asked of them: OpenID Connect Discovery.

For rules of RequestAuthentications that have neither `jwks` nor `jwksUri`. Source: OpenID Connect Discovery 1.0, section 4, and
`jwtRules` in https://istio.io/latest/docs/reference/config/security/request_authentication/
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from controlplane.model.resource import Resource, ResourceKey

log = logging.getLogger(__name__)

Changed = Mapping[ResourceKey, Resource | None]

_KIND = "RequestAuthentication"
_PATIENCE = 5.0  # seconds for one question, with everything
_LARGEST = 1 << 18  # bytes of an answer; those of large providers have a few thousand
_AT_ONCE = 8
_AGAIN = 20 * 60.0  # seconds after a good answer, as Istio has it (PILOT_JWT_PUB_KEY_REFRESH_INTERVAL)
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0  # seconds after bad ones


class BadAnswer(Exception):
    """What an issuer says is not what the specification wants; the text says why."""


@dataclass(slots=True)
class _Issuer:
    """What is known of one: ``uri`` is where its keys are, ``why`` says what was wrong when it was asked last."""

    uri: str = ""
    why: str = "it has not answered yet"
    asked: bool = False


class OpenIdDiscovery:
    """Fills in `jwksUri` where a rule has only an issuer, and asks for it in the background.

    ``tell`` gets the resources that something has become known of, ``noticed`` is called when what is wrong has changed.
    What is found is kept in the file ``kept``, so that a control plane that starts while an issuer is away knows it already.
    ``context`` verifies the issuers' certificates, by the system's roots if it is None.
    """

    def __init__(
        self,
        tell: Callable[[Changed], None],
        noticed: Callable[[], None],
        kept: Path,
        *,
        context: ssl.SSLContext | None = None,
        again: float = _AGAIN,
        first_pause: float = _FIRST_PAUSE,
    ) -> None:
        self._tell = tell
        self._noticed = noticed
        self._kept = kept
        self._context = context
        self._again = again
        self._first_pause = first_pause
        self._resources: dict[ResourceKey, Resource] = {}
        self._issuers: dict[str, _Issuer] = {}
        self._remembered = _read(kept)
        self._wanted = asyncio.Event()
        self._told = asyncio.Event()
        self._limit = asyncio.Semaphore(_AT_ONCE)

    def resolved(self, resources: Changed) -> Changed:
        """The same changes, with the addresses that are known so far."""
        found = dict(resources)
        for key, resource in resources.items():
            if key.kind != _KIND:
                continue
            if resource is None or not _issuers_of(resource):
                self._resources.pop(key, None)
            else:
                self._resources[key] = resource
                found[key] = self._filled(resource)
        if any(key.kind == _KIND for key in resources):
            self._collect()
            found |= {key: self._filled(one) for key, one in self._resources.items() if key in found}
        return found

    def unknown(self) -> Mapping[str, str]:
        """Issuers whose keys are not known, and why."""
        return {name: one.why for name, one in self._issuers.items() if not one.uri}

    async def asked(self, patience: float) -> None:
        """Wait until every issuer has been asked once, ``patience`` seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not all(one.asked or one.uri for one in self._issuers.values()):
                    self._told.clear()
                    await self._told.wait()

    async def run(self) -> None:
        """Ask until cancelled."""
        following: dict[str, asyncio.Task[None]] = {}
        context = self._context or ssl.create_default_context()
        connector = aiohttp.TCPConnector(ssl=context, limit=_AT_ONCE, force_close=True)
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            trust_env=True,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            try:
                while True:
                    self._wanted.clear()
                    for name in following.keys() - self._issuers.keys():
                        following.pop(name).cancel()
                    for name in self._issuers.keys() - following.keys():
                        following[name] = asyncio.create_task(self._follow(session, name))
                    await self._wanted.wait()
            finally:
                for task in following.values():
                    task.cancel()
                await asyncio.gather(*following.values(), return_exceptions=True)

    async def _follow(self, session: aiohttp.ClientSession, name: str) -> None:
        pause = self._first_pause
        while True:
            try:
                async with self._limit:
                    uri = await _ask(session, name)
            except BadAnswer as error:
                self._learnt(name, "", str(error))
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                self._learnt(name, uri, "")
                pause = self._first_pause
                await asyncio.sleep(self._again * random.uniform(0.8, 1.2))

    def _learnt(self, name: str, uri: str, why: str) -> None:
        """An issuer has answered. What is known of it stays when it no longer does."""
        issuer = self._issuers.get(name)
        if issuer is None:
            return
        if why and (why != issuer.why or not issuer.asked):
            known = f"; its keys stay at {issuer.uri}" if issuer.uri else ""
            log.warning("issuer %s: %s%s", name, why, known)
        news = (bool(uri) and uri != issuer.uri, why != issuer.why)
        issuer.asked = True
        issuer.why = why
        if news[0]:
            issuer.uri = uri
            log.info("issuer %s: its keys are at %s", name, uri)
            self._keep()
            self._tell({key: self._filled(one) for key, one in self._resources.items() if name in _issuers_of(one)})
        self._told.set()
        if any(news):
            self._noticed()

    def _collect(self) -> None:
        """Which issuers are of interest now."""
        names = {name for resource in self._resources.values() for name in _issuers_of(resource)}
        if names == self._issuers.keys():
            return
        self._issuers = {
            name: self._issuers.get(name) or _Issuer(self._remembered.get(name, "")) for name in sorted(names)
        }
        self._wanted.set()

    def _filled(self, resource: Resource) -> Resource:
        rules = []
        for rule in resource.spec.jwt_rules:
            issuer = self._issuers.get(rule.issuer) if rule.is_discovered else None
            rules.append(
                rule.model_copy(update={"jwks_uri": issuer.uri}) if issuer is not None and issuer.uri else rule
            )
        return replace(resource, spec=resource.spec.model_copy(update={"jwt_rules": tuple(rules)}))

    def _keep(self) -> None:
        self._remembered = {name: one.uri for name, one in self._issuers.items() if one.uri}
        written = self._kept.with_suffix(".new")
        try:
            written.write_text(json.dumps(self._remembered))
            os.replace(written, self._kept)
        except OSError as error:
            log.warning("%s: %s; it is asked for again after the next start", self._kept, error.strerror)


def _issuers_of(resource: Resource) -> set[str]:
    return {rule.issuer for rule in resource.spec.jwt_rules if rule.is_discovered}


def _read(path: Path) -> dict[str, str]:
    """What was known before; nothing if the file is not there, or is not right."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: uri for name, uri in found.items() if isinstance(uri, str) and _is_secure(uri)}


async def _ask(session: aiohttp.ClientSession, issuer: str) -> str:
    """The `jwks_uri` of an issuer. Raises BadAnswer."""
    url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    try:
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                raise BadAnswer(f"{url} answers with status {response.status}, not with 200")
            body = await _body(response)
    except TimeoutError:
        raise BadAnswer(f"{url} has not answered within {_PATIENCE:g} seconds") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise BadAnswer(f"{url} cannot be asked: {str(error) or type(error).__name__}") from None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise BadAnswer(f"what {url} answers is not JSON") from None
    if not isinstance(document, dict):
        raise BadAnswer(f"what {url} answers is not an object")
    if document.get("issuer") != issuer:  # section 4.3: otherwise one issuer could speak for another
        raise BadAnswer(f"{url} is of the issuer {str(document.get('issuer'))[:200]!r}")
    uri = document.get("jwks_uri")
    if not isinstance(uri, str) or not _is_secure(uri):
        raise BadAnswer(f"the jwks_uri in {url} is no address that begins with https://")
    return uri


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _LARGEST:
            raise BadAnswer(f"what {response.url} answers is larger than {_LARGEST} bytes")
    return bytes(body)


def _is_secure(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return parts.scheme == "https" and bool(parts.hostname) and (parts.port or 443) > 0 and uri.isprintable()
    except ValueError:
        return False
