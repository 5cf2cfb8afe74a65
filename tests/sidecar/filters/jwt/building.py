"""The filter on a clock that tests turn, and a server of keys that answers when a test says so."""

import json
import time

from sidecar.config.filters.jwt_authn import (
    JwtAuthentication,
    JwtProvider,
    LocalJwks,
    RemoteJwks,
    RequirementRule,
    RequireProvider,
)
from sidecar.config.route_match import RouteMatch
from sidecar.core.client import RequestFailed, Response
from sidecar.core.head import ResponseHead
from sidecar.filters.jwt.filter import make_jwt_authn
from sidecar.router.route_conditions import compile_request_match
from tests import tokens
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get, make_context


class Wall:
    """The wall clock: the real time at the beginning, so that real tokens are good."""

    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now


class KeyServer:
    """``Clients``, the ``HttpClient`` and what it asks: keeps the requests, or fails them before they return."""

    def __init__(self):
        self.asked = []
        self.sinks = []
        self.dead = False

    def http(self, cluster_name, options):
        self.cluster_name = cluster_name
        self.options = options
        return self

    def request(self, head, body, sink):
        self.asked.append(head)
        self.sinks.append(sink)
        if self.dead:
            self.fail()
        return self

    def answer(self, text, status=200):
        sink = self.sinks.pop()
        reply = Response(ResponseHead(status, []), text.encode(), None)
        sink.on_response(*reply)

    def fail(self):
        self.sinks.pop().on_failure(RequestFailed(503, "no", "upstream_reset", 0))


REMOTE = RemoteJwks("keys", b"issuer.test", b"/jwks", 1.0, 300.0)
ANY_PATH = RouteMatch("prefix", b"/")


def local(*names, algorithm="RS256"):
    return LocalJwks(tokens.jwks(*(tokens.jwk(name, algorithm) for name in names or ("one",))).encode())


class Site:
    """A filter with one provider, ``one``, unless others are given, and everything around it."""

    def __init__(self, jwks=None, requires=None, providers=None, **fields):
        self.worker = FakeWorker()
        self.wall = Wall()
        self.server = KeyServer()
        self.waits = []
        self.watched = []
        settings = {} if providers is not None else fields
        rest = fields if providers is not None else {}
        given = providers or (JwtProvider("one", jwks or local(), "one", **settings),)
        config = JwtAuthentication(
            {one.name: one for one in given},
            (RequirementRule(ANY_PATH, requires or RequireProvider(given[0].name)),),
            **rest,
        )
        context = make_context(
            self.worker,
            clients=lambda: self.server,
            compile_route_match=compile_request_match,
            watch_files=self._watch,
            wait_for=self._wait_for,
        )
        self.filter = make_jwt_authn(config, "jwt", context, self.wall)
        self.stats = self.filter.shared.stats

    def _watch(self, paths, changed):
        self.watched.append((tuple(paths), changed))
        return lambda: self.watched.clear()

    def _wait_for(self, target, start):
        started = {"target": target, "there": False}
        self.waits.append(started)
        start(lambda: started.update(there=True))

    def later(self, seconds):
        """Both clocks go on."""
        self.wall.now += seconds
        self.worker.advance(seconds)

    def ask(self, text=None, path=b"/", *fields):
        """One request, with a token where tokens usually are."""
        bearer = () if text is None else ((b"authorization", b"Bearer " + text.encode()),)
        return FakeStream(self.worker, [self.filter], get(path, *bearer, *fields)).ask()


def outcome(stream):
    """200 for a request that went on, None for one that waits, and otherwise status and reason."""
    if stream.replied is None:
        return 200 if stream.forwarded else None
    status, body, _ = stream.replied
    return status, body.decode()


def keys_of(text):
    return json.loads(text)["keys"]
