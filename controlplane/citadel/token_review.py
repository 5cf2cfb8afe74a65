"""Kubernetes service-account tokens, judged by the API server that issued them (TokenReview).

Source: Kubernetes, "TokenReview v1" and "Service account token authentication"; the audience is Istio's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import yaml

from controlplane.model.credentials import Identity, Means, Role, Unauthenticated

AUDIENCE: Final = "istio-ca"
IN_CLUSTER: Final = "in-cluster"
_PATH: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LONGEST: Final = 16 * 1024
_LARGEST_ANSWER: Final = 1 << 20
_TIMEOUT: Final = 5.0  # seconds
_AT_ONCE: Final = 32
_JWT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_USERNAME: Final = re.compile(r"system:serviceaccount:([a-z0-9]([-a-z0-9]*[a-z0-9])?):([a-z0-9]([-.a-z0-9]*[a-z0-9])?)")


class InvalidCluster(ValueError):
    """The files that say where the API server is cannot be used: says which and why."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where an API server is, and who we are there: a bearer token, in a file that may be replaced or given, or a certificate
    in ``context``.
    """

    server: str
    context: ssl.SSLContext = field(repr=False)
    token: str = field(default="", repr=False)
    token_file: Path | None = None

    def bearer(self) -> str:
        """The token as it is now. Raises OSError."""
        return self.token if self.token_file is None else self.token_file.read_text(encoding="utf-8").strip()


class TokenReviews:
    """Asks one API server. A token is asked about each time that it is shown: what is revoked ends at once."""

    def __init__(self, cluster: Cluster, audience: str = AUDIENCE) -> None:
        self._cluster = cluster
        self._audience = audience
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None

    async def identify(self, token: str) -> Identity:
        """The service account whose token this is. Raises Unauthenticated, also when the API server cannot be asked."""
        if len(token) > _LONGEST:
            raise Unauthenticated("the token is too long")
        try:
            async with asyncio.timeout(_TIMEOUT), self._room:
                status = await self._ask(token)
        except (TimeoutError, OSError, aiohttp.ClientError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise Unauthenticated(f"the Kubernetes API server cannot be asked about the token: {reason}") from None
        return self._judged(status)

    async def close(self) -> None:
        """End the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, token: str) -> dict[str, Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._cluster.context))
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        bearer = self._cluster.bearer()
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        async with self._session.post(
            self._cluster.server + _PATH, json=review, headers=headers, allow_redirects=False
        ) as answer:
            if answer.status not in (200, 201):
                raise ValueError(f"it answers {answer.status} (may this control plane create tokenreviews there?)")
            body = bytearray()
            async for piece in answer.content.iter_any():
                body += piece
                if len(body) > _LARGEST_ANSWER:
                    raise ValueError(f"it gives an answer of more than {_LARGEST_ANSWER} bytes")
            found = orjson.loads(body)
        status = found.get("status") if isinstance(found, dict) else None
        if not isinstance(status, dict):
            raise ValueError("its answer has no status")
        return status

    def _judged(self, status: dict[str, Any]) -> Identity:
        if status.get("authenticated") is not True or status.get("error"):
            raise Unauthenticated("the Kubernetes API server does not know the token, or it has expired")
        # A server that knows nothing of audiences tells none, and the token may have been meant for anybody.
        if self._audience not in (status.get("audiences") or ()):
            raise Unauthenticated(f"the token is not for the audience {self._audience}")
        user = status.get("user") or {}
        found = _USERNAME.fullmatch(str(user.get("username", "")))
        if found is None or "system:serviceaccounts" not in (user.get("groups") or ()):
            raise Unauthenticated("the token is not of a service account")
        namespace, account = found.group(1), found.group(3)
        name = f"system:serviceaccount:{namespace}:{account}"
        return Identity(Role.WORKLOAD, name, namespace, account, Means.KUBERNETES)


def looks_like_jwt(token: str) -> bool:
    """Whether it can be a service-account token at all."""
    return _JWT.fullmatch(token) is not None


def find_cluster(where: str) -> Cluster:
    """Of a kubeconfig file (its current context), or of the pod that this is in ("in-cluster"). Raises InvalidCluster."""
    return _in_cluster(_SERVICE_ACCOUNT) if where == IN_CLUSTER else _of_kubeconfig(Path(where))


def _in_cluster(directory: Path) -> Cluster:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise InvalidCluster("this is in no cluster: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set")
    try:
        context = _trusting(str(directory / "ca.crt"))
        (directory / "token").read_text(encoding="utf-8")
    except (OSError, ssl.SSLError) as error:
        raise InvalidCluster(f"{directory}: {error}") from None
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Cluster(server, context, token_file=directory / "token")


def _of_kubeconfig(path: Path) -> Cluster:
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        context = _named(document["contexts"], document["current-context"])["context"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        user = _named(document["users"], context["user"])["user"]
        server = cluster["server"].rstrip("/")
    except OSError as error:
        raise InvalidCluster(f"{path}: cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, UnicodeDecodeError):
        raise InvalidCluster(f"{path}: is no kubeconfig with a current context, its cluster and its user") from None
    if not server.startswith("https://") or cluster.get("insecure-skip-tls-verify"):
        raise InvalidCluster(f"{path}: the API server must be asked over TLS that is verified")
    unknown = sorted(set(user) - {"token", "tokenFile", "client-certificate", "client-key"} - {
        "client-certificate-data", "client-key-data"
    })  # fmt: skip
    if unknown:
        raise InvalidCluster(f"{path}: users[].user.{unknown[0]} is not used here: use a token or a client certificate")
    try:
        with _Files() as files:
            authority = files.of(cluster, "certificate-authority", path)
            tls = _trusting(authority)
            certificate = files.of(user, "client-certificate", path)
            if certificate is not None:
                tls.load_cert_chain(certificate, files.of(user, "client-key", path))
    except (OSError, ssl.SSLError, binascii.Error, TypeError) as error:
        raise InvalidCluster(f"{path}: its certificates cannot be used: {error}") from None
    token_file = user.get("tokenFile")
    return Cluster(server, tls, user.get("token", ""), None if token_file is None else path.parent / token_file)


def _trusting(authority: str | None) -> ssl.SSLContext:
    """Takes what kubectl takes: many clusters' certificates lack identifiers of keys, which Python 3.13 insists on."""
    context = ssl.create_default_context(cafile=authority)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class _Files:
    """The ssl module reads certificates from paths alone: what is inline in a kubeconfig goes into files in memory."""

    def __init__(self) -> None:
        self._open: list[int] = []

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open:
            os.close(descriptor)

    def of(self, entry: dict[str, Any], name: str, kubeconfig: Path) -> str | None:
        """The path of what an entry has by ``name`` or, inline, by ``name``-data."""
        inline = entry.get(f"{name}-data")
        if inline is None:
            return None if entry.get(name) is None else str(kubeconfig.parent / entry[name])
        descriptor = os.memfd_create("mizzen", os.MFD_CLOEXEC)
        self._open.append(descriptor)
        os.write(descriptor, base64.b64decode(inline, validate=True))
        return f"/proc/self/fd/{descriptor}"


def _named(entries: Any, name: str) -> Any:
    found = [entry for entry in entries if entry["name"] == name]
    return found[0]
