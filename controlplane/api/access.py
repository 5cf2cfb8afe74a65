"""Who may ask what: where a request claims to go, who it is from, and whether there is room for it. Before all handlers."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.api.body import read_body
from controlplane.api.status import ApiError
from controlplane.model.credentials import Authenticator, Identity, Role, Unauthenticated
from controlplane.model.store import Unavailable

_log = logging.getLogger(__name__)

_MOST_STRANGERS = 40  # requests of those who have not said who they are, once these are there as a whole,
_MOST_COMING = 1000  # so many that are still coming
_LARGEST_OF_STRANGERS = 64 << 10  # bytes
_PATIENCE_WITH_STRANGERS = 5.0  # seconds
_READS = frozenset(("GET", "HEAD"))
_LOOPBACK_NAMES = frozenset(("localhost",))


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may use the paths that begin with ``prefix``: ``readers`` with GET, ``writers`` with the other methods; of several
    rules the longest counts. What is ``public`` is answered without a credential, and has no identity. With ``any_host`` the
    server may be called anything, as proxies do that name it by a cluster of theirs; then no page may ask at all.
    """

    prefix: str
    readers: frozenset[Role] = frozenset((Role.ADMIN, Role.VIEWER))
    writers: frozenset[Role] = frozenset((Role.ADMIN,))
    public: bool = False
    any_host: bool = False


EVERYBODY = frozenset(Role)
_RULES = (
    *(Rule(path, public=True) for path in ("/healthz", "/livez", "/readyz", "/version")),
    Rule("/openapi/", EVERYBODY),
    Rule("/api/"),
    Rule("/apis/"),
    Rule("/api", EVERYBODY),
    Rule("/apis", EVERYBODY),
    Rule("/"),
)


class Gate:
    """The outermost of the application: lets a request pass that has a right to, with `state.identity`.

    ``names`` are the DNS names that the server goes by; requests for any other are refused, so that a web page cannot reach
    the API through a name of its own that it points here (DNS rebinding). Addresses are no names, and pass. ``most`` bounds
    the requests that are under way, ``most_watches`` the watches among them, which last. ``turned_away`` hears of those whose
    credential is not good.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        *,
        names: Collection[str] = (),
        rules: Sequence[Rule] = (),
        most: int = 400,
        most_watches: int = 2000,
        turned_away: Callable[[Scope, Unauthenticated], None] = lambda scope, error: None,
    ) -> None:
        self._app = app
        self._turned_away = turned_away
        self._authenticator = authenticator
        self._names = _LOOPBACK_NAMES | {name.lower() for name in names}
        self._rules = sorted((*rules, *_RULES), key=lambda rule: -len(rule.prefix))
        self._most = most
        self._most_watches = most_watches
        self._requests = 0
        self._strangers = 0
        self._coming = 0
        self._watches = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if len(scope["path"]) > 1 and scope["path"].endswith("/"):
            scope["path"] = scope["path"][:-1]  # generated clients ask for `/version/` and `/apis/`
        if self._rule(scope["path"]).public:  # by anybody: room of their own, so that they take nobody else's
            await self._answer_anybody(scope, receive, send)
            return
        watch = b"watch=" in scope["query_string"] and scope["method"] == "GET"
        if (self._watches >= self._most_watches) if watch else (self._requests >= self._most):
            await _too_many().response()(scope, receive, send)
            return
        self._requests += not watch
        self._watches += watch
        try:
            await self._pass(scope, receive, send)
        finally:
            self._requests -= not watch
            self._watches -= watch

    async def _answer_anybody(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in _READS:  # health and version, which are answered at once
            await self._pass(scope, receive, send)
            return
        try:
            # Who sends their body bit by bit takes the place of nobody whose body is there.
            receive = await self._received(scope, receive)
            if self._strangers >= _MOST_STRANGERS:
                raise _too_many()
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        except ClientDisconnect:
            return
        self._strangers += 1
        try:
            await self._pass(scope, receive, send)
        finally:
            self._strangers -= 1

    async def _received(self, scope: Scope, receive: Receive) -> Receive:
        """What gives the body, which is here. Raises ApiError and ClientDisconnect."""
        if self._coming >= _MOST_COMING:
            raise _too_many()
        self._coming += 1
        try:
            body = await read_body(Request(scope, receive), _LARGEST_OF_STRANGERS, _PATIENCE_WITH_STRANGERS)
        finally:
            self._coming -= 1
        parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return parts.pop() if parts else await receive()

        return replay

    def _rule(self, path: str) -> Rule:
        return next(rule for rule in self._rules if path.startswith(rule.prefix))

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched_send(message: object) -> None:
            nonlocal begun
            begun = True
            await send(message)  # type: ignore[arg-type]

        try:
            headers = Headers(scope=scope)
            rule = self._rule(scope["path"])
            self._check_origin(headers, rule)
            if not rule.public:
                state = scope.setdefault("state", {})
                identity = await self._identify(scope, headers, state.get("certificate"))
                _check_rights(identity, rule, scope["method"], scope["path"])
                state["identity"] = identity
            await self._app(scope, receive, watched_send)
        except ApiError as error:
            if begun:
                raise
            await error.response()(scope, receive, send)
        except Unavailable as error:  # who it is from cannot be found out
            if begun:
                raise
            await ApiError(503, str(error), headers={"Retry-After": "1"}).response()(scope, receive, send)
        except Exception:
            if begun:
                raise
            _log.exception("a request failed: %s %s", scope["method"], scope["path"])
            await ApiError(500, "the server failed at this request; its log says why").response()(scope, receive, send)

    async def _identify(self, scope: Scope, headers: Headers, certificate: bytes | None) -> Identity:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        try:
            if token and scheme.lower() == "bearer":
                return await self._authenticator.authenticate(token=token.strip())
            if certificate is not None:
                return await self._authenticator.authenticate(certificate=certificate)
            raise Unauthenticated("a bearer token is required: see admin.kubeconfig in the data directory")
        except Unauthenticated as error:
            self._turned_away(scope, error)
            headers_ = {"WWW-Authenticate": 'Bearer realm="mizzen"'}
            raise ApiError(401, f"Unauthorized: {error}", headers=headers_) from None

    def _check_origin(self, headers: Headers, rule: Rule) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not (rule.any_host or self._is_own(hosts[0])):
            raise ApiError(
                403,
                "forbidden: the request is for another host than this server; add its name with --name",
            )
        origin = headers.get("origin")
        if origin is not None and (rule.any_host or urlsplit(origin).netloc.lower() != hosts[0].lower()):
            raise ApiError(403, "forbidden: the request comes from a page of another origin")

    def _is_own(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _too_many() -> ApiError:
    return ApiError(429, "too many requests at once, please try again later", headers={"Retry-After": "1"})


def _check_rights(identity: Identity, rule: Rule, method: str, path: str) -> None:
    if identity.role not in (rule.readers if method in _READS else rule.writers):
        raise ApiError(403, f'forbidden: "{identity.name}" ({identity.role}) may not {method} {path}')
