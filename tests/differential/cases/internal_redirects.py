"""Internal redirects: which responses are followed, what the second request looks like, and where it ends."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import Message, Site, bootstrap, listener, manager, route, say, to, virtual_host
from tests.differential.case import Delay, Header, ReadBody, Reply, reply, request
from tests.differential.http2_case import Http2Table
from tests.differential.http2_frames import request as ask

PREDICATES = "type.googleapis.com/envoy.extensions.internal_redirect"
FAST = {"base_interval": "0.001s", "max_interval": "0.002s"}


def predicate(name: str, message: str, **fields: Any) -> Message:
    return {
        "name": f"envoy.internal_redirect_predicates.{name}",
        "typed_config": {"@type": f"{PREDICATES}.{name}.v3.{message}", **fields},
    }


PREVIOUS = predicate("previous_routes", "PreviousRoutesConfig")
SAFE = predicate("safe_cross_scheme", "SafeCrossSchemeConfig")
ALLOWED = predicate("allow_listed_routes", "AllowListedRoutesConfig", allowed_route_names=["end", "again"])

POLICIES: dict[str, Message] = {
    "usual": {},
    "twice": {"max_internal_redirects": 2},
    "never": {"max_internal_redirects": 0},
    "codes": {"redirect_response_codes": [301, 303, 307, 308]},
    "odd-codes": {"redirect_response_codes": [200, 302]},
    "cross": {"allow_cross_scheme_redirect": True},
    "safe": {"allow_cross_scheme_redirect": True, "predicates": [SAFE]},
    "allowed": {"predicates": [ALLOWED]},
    "again": {"max_internal_redirects": 5, "predicates": [PREVIOUS]},
    "copy": {"response_headers_to_copy": ["X-Given", "X-Other", "X-Gone"]},
}


def internal_redirects(site: Site) -> Message:
    def routes() -> list[Message]:
        return [
            *(
                route(f"/{name}/", to("a", internal_redirect_policy=policy), name=name)
                for name, policy in POLICIES.items()
            ),
            route("/end/", to("b"), name="end"),
            route("/other/", to("b"), name="other"),
            route("/said/", say(200, "said"), name="said"),
            route(
                "/changed/",
                to("a", prefix_rewrite="/rewritten/", internal_redirect_policy={}),
                request_headers_to_add=[{"header": {"key": "x-added", "value": "%REQ(:PATH)%"}}],
                response_headers_to_add=[{"header": {"key": "x-response", "value": "1"}}],
            ),
            route(
                "/retried/",
                to(
                    "a",
                    internal_redirect_policy={},
                    retry_policy={
                        "retry_on": "retriable-status-codes,5xx",
                        "retriable_status_codes": [302],
                        "retry_back_off": FAST,
                    },
                ),
            ),
            route(
                "/hedged/",
                to(
                    "a",
                    internal_redirect_policy={},
                    hedge_policy={"hedge_on_per_try_timeout": True},
                    retry_policy={"retry_on": "5xx", "per_try_timeout": "0.2s", "retry_back_off": FAST},
                ),
            ),
            route("/mirrored/", to("a", internal_redirect_policy={}, request_mirror_policies=[{"cluster": "c"}])),
            route("/plain/", to("a")),
        ]

    hosts = [
        virtual_host("one", ["*"], routes()),
        virtual_host("two", ["two.test", "two.test:*"], [route("/two/", to("c"), name="two")]),
        virtual_host("none", ["none.test"], []),
    ]
    inside: Message = {
        "use_remote_address": True,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]},
    }
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, hosts=hosts)),
            listener(site, "inside", manager(site, hosts=hosts, **inside)),
            listener(site, "edge", manager(site, hosts=hosts, use_remote_address=True)),
            listener(site, "normalized", manager(site, hosts=hosts, normalize_path=True, merge_slashes=True)),
        ],
    )


BOOTSTRAPS = {"internal_redirects": internal_redirects}

table = Http2Table("internal-redirects", "internal_redirects")
CASES = table.cases


def moved(location: str | None, status: int = 302, headers: tuple[Header, ...] = (), **options: Any) -> Reply:
    given = [] if location is None else [("Location", location)]
    return reply(status, headers=[*given, *headers], **options)


def get(name: str, target: str, *upstream: Reply, headers: Any = (), **options: Any) -> None:
    table.get(name, target, headers, upstream={"a": upstream, "b": [reply()], "c": [reply()]}, **options)


END = "http://a.test/end/x?q=1"

get("followed", "/usual/", moved(END))
for _listener in ("inside", "edge", "normalized"):
    get(f"followed-{_listener}", "/usual/", moved(END), listener=_listener, headers=[("x-forwarded-for", "1.2.3.4")])
    get(f"followed-bare-{_listener}", "/usual/", moved(END), listener=_listener)
get("with-body", "/usual/", moved(END, body=b"go away"))
get("without-body", "/usual/", moved(END, body=b""))
get("chunked", "/usual/", moved(END, chunks=[b"go", b"away"]))
get("closing", "/usual/", moved(END, headers=(("Connection", "close"),)))
get("no-location", "/usual/", moved(None))
for _name, _location in {
    "relative": "/end/x",
    "relative-word": "end",
    "empty": "",
    "no-path": "http://a.test",
    "query-only": "http://a.test?q=1",
    "fragment": "http://a.test/end/x?q=1#part",
    "port": "http://a.test:81/end/x",
    "user": "http://me:secret@a.test/end/x",
    "upper-case": "HTTP://a.test/end/x",
    "ipv6": "http://[::1]:80/end/x",
    "blank": "http://a.test/end/ x",
    "bad-port": "http://a.test:port/end/x",
    "no-host": "http:///end/x",
    "ftp": "ftp://a.test/end/x",
    "https": "https://a.test/end/x",
    "odd": "nonsense",
    "dots": "http://a.test/usual/../end/x",
    "double-slash": "http://a.test//end/x",
    "other-host": "http://two.test/two/x",
    "other-host-no-route": "http://two.test/three",
    "no-routes": "http://none.test/x",
    "to-direct-response": "http://a.test/said/x",
    "plain": "http://a.test/plain/x",
}.items():
    get(f"location-{_name}", "/usual/", moved(_location), reply(201))
for _name in ("dots", "double-slash"):
    _location = {"dots": "http://a.test/usual/../end/x", "double-slash": "http://a.test//end/x"}[_name]
    get(f"normalized-{_name}", "/usual/", moved(_location), reply(201), listener="normalized")
for _status in (200, 201, 301, 302, 303, 304, 307, 308):
    get(f"status-{_status}", "/usual/", moved(END, _status))
    get(f"code-{_status}", "/codes/", moved(END, _status))
    get(f"odd-code-{_status}", "/odd-codes/", moved(END, _status))
get("once", "/usual/", moved("http://a.test/usual/y"), moved("http://a.test/usual/z"), reply())
get("twice", "/twice/", moved("http://a.test/twice/y"), moved(END), reply())
get("thrice", "/twice/", moved("http://a.test/twice/y"), moved("http://a.test/twice/z"), moved(END))
get("never", "/never/", moved(END))
get("cross-scheme", "/cross/", moved("https://a.test/end/x"))
get("safe-scheme", "/safe/", moved("https://a.test/end/x"))
get("safe-scheme-same", "/safe/", moved(END))
get("allowed", "/allowed/", moved(END))
get("not-allowed", "/allowed/", moved("http://a.test/other/"))
get("not-allowed-direct", "/allowed/", moved("http://a.test/said/"))
get("again", "/again/", moved("http://a.test/again/y"), moved("http://a.test/again/z"), reply())
get("again-elsewhere", "/again/", moved("http://a.test/again/y"), moved(END))
get(
    "copied",
    "/copy/",
    moved(END, headers=(("X-Given", "new"), ("X-Given", "newer"), ("X-Other", "o"))),
    headers=[("X-Given", "old"), ("X-Gone", "g"), ("X-Kept", "k")],
)
for _status in (301, 303, 307):
    get(f"post-{_status}", "/codes/", moved(END, _status), method="POST", body=b"a body")
    get(f"head-{_status}", "/codes/", moved(END, _status), method="HEAD")
get("post-twice", "/twice/", moved("http://a.test/twice/y"), moved(END), method="PUT", body=b"a body")
table.add(
    "trailers",
    request("POST", "/codes/", chunks=[b"one", b"two"], trailers=[("X-Trailer", "t")]),
    methods=("POST",),
    upstream={"a": [moved(END, 307)], "b": [reply()]},
)
table.add(
    "trailers-303",
    request("POST", "/codes/", chunks=[b"one"], trailers=[("X-Trailer", "t")]),
    methods=("POST",),
    upstream={"a": [moved(END, 303)], "b": [reply()]},
)
get("early", "/codes/", moved(END, 307, early=True), method="POST", body=b"x" * 50000)
get("large-body", "/codes/", moved(END, 307), method="POST", body=b"x" * 50000)
get("too-large-body", "/codes/", moved(END, 307), method="POST", body=b"x" * 1200000, ignore=("upstream[0].body",))
get("changed", "/changed/x", moved(END))
get("changed-again", "/changed/x", moved("http://a.test/changed/y"), reply())
get("retried-first", "/retried/", moved(END), reply())
get("retried-out", "/retried/", moved(END), moved(END))
get("retried-after", "/usual/", moved("http://a.test/retried/"), reply(503), reply())
get("hedged", "/hedged/", moved(END, delay=0.3), Reply((ReadBody(), Delay(2.0))), unordered=True)
get("mirrored", "/mirrored/", moved(END), upstream_requests=3, unordered=True)
get("asked-for-retries", "/codes/", moved(END, 307), method="POST", body=b"x", listener="inside",
    headers=[("x-envoy-max-retries", "3")])  # fmt: skip
table.add(
    "two-requests",
    request("GET", "/usual/"),
    request("GET", "/usual/"),
    methods=("GET", "GET"),
    upstream={"a": [moved(END)], "b": [reply()]},
)
for _status in (302, 303, 307):
    table.ask(
        f"h2-{_status}",
        "/codes/" if _status != 302 else "/usual/",
        method="POST",
        body=b"a body",
        upstream={"a": [moved(END, _status)], "b": [reply()]},
    )
table.frames(
    "h2-two-at-once",
    ask(1, "GET", "/usual/") + ask(3, "GET", "/usual/"),
    upstream={"a": [moved(END)], "b": [reply()]},
    unordered=True,
    access_log=False,  # which of them ends first is left to chance
)
