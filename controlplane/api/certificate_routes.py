"""Certificates over REST: workloads come in and stay, ask for the trust bundle and for JWT-SVIDs; operators see what there is."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from controlplane.api.access import Rule
from controlplane.api.fields import json_response, lifetime_field, read_fields, refuse_field, text_field
from controlplane.api.status import JSON, ApiError
from controlplane.model.accepting import share_of_descriptors
from controlplane.model.certificates import (
    CannotIssue,
    CertificateIssuer,
    InvalidRequest,
    IssuedCertificate,
    IssuerCertificate,
    NotAllowed,
    TooOften,
    TrustBundle,
)
from controlplane.model.credentials import Authenticator, Identity, Means, Role, Unauthenticated
from controlplane.model.values import dns_label_complaint, dns_subdomain_complaint

log = logging.getLogger("controlplane.api")

JOIN: Final = "/mizzen/v1/join"
RENEW: Final = "/mizzen/v1/renew"
ROOT: Final = "/mizzen/v1/root"
CERTIFICATES: Final = "/mizzen/v1/certificates"
TRUST_BUNDLE: Final = "/mizzen/v1/trust-bundle"
JWT_SVIDS: Final = "/mizzen/v1/jwt-svids"

_WORKLOADS: Final = frozenset((Role.WORKLOAD,))
_NOBODY: Final[frozenset[Role]] = frozenset()
RULES: Final = (
    Rule(ROOT, public=True),
    Rule(JOIN, public=True),  # the token is the credential of those who join
    Rule(TRUST_BUNDLE, public=True),
    Rule(RENEW, _NOBODY, _WORKLOADS),
    Rule(JWT_SVIDS, _NOBODY, _WORKLOADS),
    Rule(CERTIFICATES, writers=frozenset((Role.ADMIN, Role.WORKLOAD))),
)

_LONGEST_WAIT: Final = 300.0
_MOST_WAITING: Final = share_of_descriptors(0.2, 48, 12_288)  # of the connections that there may be (see ApiServer)
_SAY_AGAIN: Final = 60.0
_LISTED_AT_ONCE: Final = 500


class CertificateRoutes:
    """What workloads need to come in and stay: `join`, `renew`, `certificates`, `trust-bundle`, `jwt-svids`, `root`."""

    def __init__(self, issuer: CertificateIssuer, authenticator: Authenticator) -> None:
        self._issuer = issuer
        self._authenticator = authenticator
        self._most_waiting = _MOST_WAITING
        self._most_of_one = max(1, _MOST_WAITING // 4)
        self._waiting: Counter[str] = Counter()
        self._waiting_in_all = 0
        self._said_full = 0.0

    def routes(self) -> Sequence[BaseRoute]:
        """For the application."""
        return (
            Route(JOIN, self._join, methods=["POST"]),
            Route(RENEW, self._renew, methods=["POST"]),
            Route(ROOT, self._root, methods=["GET"]),
            Route(CERTIFICATES, self._certify, methods=["POST"]),
            Route(CERTIFICATES, self._list, methods=["GET"]),
            Route(CERTIFICATES + "/authority", self._authority, methods=["GET"]),
            Route(TRUST_BUNDLE, self._trust_bundle, methods=["GET"]),
            Route(TRUST_BUNDLE + "/spiffe", self._spiffe_bundle, methods=["GET"]),
            Route(JWT_SVIDS, self._jwt_svid, methods=["POST"]),
        )

    def turned_away(self, scope: Scope, error: Unauthenticated) -> None:
        """Somebody asks for an identity, and their credential is not good, or shows one that is good elsewhere alone: that is
        written down.
        """
        if error.proof or (scope["method"] == "POST" and scope["path"] in (RENEW, CERTIFICATES, JWT_SVIDS)):
            by_token = any(name == b"authorization" for name, _ in scope["headers"])
            means = error.proof or ("a token" if by_token else "a client certificate, or nothing")
            self._issuer.turned_away(str(error), authenticated=means, source=_source(Request(scope)))

    async def _join(self, request: Request) -> Response:
        """Body: `token`, `certificateSigningRequest` in PEM, `lifetime` in seconds. The answer: `certificateChain` in PEM, the
        root last.
        """
        body = await read_fields(request, "token", "certificateSigningRequest", "lifetime")
        token, asked = text_field(body, "token"), _signing_request(body)
        with _refusals():
            chain = await self._issuer.join(token, asked, lifetime=lifetime_field(body), source=_source(request))
        return json_response({"certificateChain": chain.decode()}, 201)

    async def _renew(self, request: Request) -> Response:
        """By a certificate that is still good: another one. Body and answer as of `join`, without the token."""
        body = await read_fields(request, "certificateSigningRequest", "lifetime")
        caller = _by_certificate(request.state.identity)
        with _refusals():
            chain = await self._issuer.certify(
                caller, _signing_request(body), lifetime=lifetime_field(body), source=_source(request)
            )
        return json_response({"certificateChain": chain.decode()}, 201)

    async def _certify(self, request: Request) -> Response:
        """By an admin for whom `namespace` and `serviceAccount` name; by a workload, which has a Kubernetes token, say, for
        itself. Body and answer as of `renew` otherwise.
        """
        caller: Identity = request.state.identity
        body = await read_fields(request, "namespace", "serviceAccount", "certificateSigningRequest", "lifetime")
        namespace = account = ""
        if caller.role is Role.ADMIN or "namespace" in body or "serviceAccount" in body:
            namespace, account = text_field(body, "namespace"), text_field(body, "serviceAccount")
            refuse_field("namespace", dns_label_complaint(namespace))
            refuse_field("serviceAccount", dns_subdomain_complaint(account))
        with _refusals():
            chain = await self._issuer.certify(
                caller,
                _signing_request(body),
                namespace=namespace,
                service_account=account,
                lifetime=lifetime_field(body),
                source=_source(request),
            )
        return json_response({"certificateChain": chain.decode()}, 201)

    async def _list(self, request: Request) -> Response:
        """Workloads' certificates that have not expired, in pieces: of ten thousand workloads there are many."""
        return StreamingResponse(_pieces(self._issuer.issued()), media_type=JSON)

    async def _authority(self, request: Request) -> Response:
        return json_response([_issuer_json(certificate) for certificate in self._issuer.issuers()])

    async def _trust_bundle(self, request: Request) -> Response:
        """With `wait` seconds the answer comes when the version is not `have`, or after that time."""
        have, wait = _number(request, "have"), _number(request, "wait") or 0
        certificate = request.scope.get("state", {}).get("certificate")
        if certificate is None:
            if wait:
                raise ApiError(401, "wait: is for workloads, by their certificate; others ask without it")
            return _bundle_response(self._issuer.bundle())
        try:
            caller = await self._authenticator.authenticate(certificate=certificate)
        except Unauthenticated as error:
            raise ApiError(401, f"Unauthorized: {error}") from None
        source, seconds = _source(request), min(float(wait), _LONGEST_WAIT)
        if not seconds:
            return _bundle_response(await self._issuer.changed_bundle(caller, have, 0.0, source))
        self._judge_room(caller)
        self._waiting[caller.name] += 1
        self._waiting_in_all += 1
        try:
            found = await self._issuer.changed_bundle(caller, have, seconds, source)
        finally:
            self._waiting_in_all -= 1
            self._waiting[caller.name] -= 1
            if not self._waiting[caller.name]:
                del self._waiting[caller.name]
        return _bundle_response(found)

    def _judge_room(self, caller: Identity) -> None:
        """Raises ApiError 429 for one who waits beside too many."""
        if self._waiting_in_all < self._most_waiting and self._waiting[caller.name] < self._most_of_one:
            return
        full = self._waiting_in_all >= self._most_waiting
        who = f"{self._waiting_in_all} wait" if full else f"{self._waiting[caller.name]} of {caller.name} wait"
        if time.monotonic() - self._said_full > _SAY_AGAIN:
            self._said_full = time.monotonic()
            log.warning("%s for the trust bundle, as many as may: more are told to ask without waiting", who)
        raise ApiError(
            429, f"wait: {who} for the trust bundle, as many as may: ask without wait", headers={"Retry-After": "60"}
        )

    async def _spiffe_bundle(self, request: Request) -> Response:
        return json_response(self._issuer.spiffe_bundle())

    async def _jwt_svid(self, request: Request) -> Response:
        """Body: `audience`, a list of texts, and `lifetime` in seconds. The answer: `token`, and `expiresAt` in seconds since
        the epoch.
        """
        body = await read_fields(request, "audience", "lifetime")
        caller = _by_certificate(request.state.identity)
        audience = body.get("audience")
        if not isinstance(audience, list) or not all(isinstance(one, str) for one in audience):
            raise ApiError(422, "audience: must be a list of texts")
        with _refusals():
            token, expires = await self._issuer.jwt_svid(
                caller, audience, lifetime=lifetime_field(body), source=_source(request)
            )
        return json_response({"token": token, "expiresAt": expires}, 201)

    async def _root(self, request: Request) -> Response:
        return json_response({"root": self._issuer.root().decode()})


@contextmanager
def _refusals() -> Iterator[None]:
    """What an issuer raises, as answers."""
    try:
        yield
    except Unauthenticated as error:
        raise ApiError(401, f"Unauthorized: {error}") from None
    except NotAllowed as error:
        raise ApiError(403, f"forbidden: {error}") from None
    except TooOften as error:
        raise ApiError(429, str(error), headers={"Retry-After": f"{math.ceil(error.wait)}"}) from None
    except InvalidRequest as error:
        raise ApiError(422, f"{error.field}: {error}") from None
    except CannotIssue as error:
        raise ApiError(503, str(error), headers={"Retry-After": "10"}) from None


def _by_certificate(caller: Identity) -> Identity:
    if caller.means is not Means.CERTIFICATE:
        raise ApiError(
            403, f"forbidden: a client certificate is required here, and {caller.name} came by a {caller.means}"
        )
    return caller


def _signing_request(body: dict[str, Any]) -> bytes:
    return text_field(body, "certificateSigningRequest").encode()


def _source(request: Request) -> str:
    return "" if request.client is None else f"{request.client.host}:{request.client.port}"


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ApiError(422, f"{name}: must be a whole number, not {text[:40]!r}")
    return int(text)


def _bundle_response(bundle: TrustBundle) -> Response:
    return json_response({
        "trustDomain": bundle.trust_domain,
        "version": bundle.version,
        "roots": "".join(bundle.roots),
        "crl": bundle.crl,
        "jwks": bundle.jwks,
        "refreshHint": bundle.refresh_hint,
        "renewWithin": bundle.renew_within,
    })  # fmt: skip


async def _pieces(found: Sequence[IssuedCertificate]) -> AsyncIterator[bytes]:
    yield b"["
    for start in range(0, len(found), _LISTED_AT_ONCE):
        piece = orjson.dumps([_issued_json(certificate) for certificate in found[start : start + _LISTED_AT_ONCE]])
        yield (b"," if start else b"") + piece[1:-1]
        await asyncio.sleep(0)
    yield b"]"


def _issued_json(certificate: IssuedCertificate) -> dict[str, Any]:
    return {
        "serial": certificate.serial,
        "identity": certificate.identity,
        "requester": certificate.requester,
        "authenticated": certificate.authenticated,
        "source": certificate.source,
        "issuedAt": certificate.issued_at,
        "notAfter": certificate.not_after,
    }


def _issuer_json(certificate: IssuerCertificate) -> dict[str, Any]:
    return {
        "role": certificate.role,
        "subject": certificate.subject,
        "serial": certificate.serial,
        "key": certificate.key,
        "signing": certificate.signing,
        "notBefore": certificate.not_before,
        "notAfter": certificate.not_after,
    }
