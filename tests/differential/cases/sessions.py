"""Requests that ask for a host: sessions in headers and cookies, and the health statuses in which hosts may be asked for."""

from __future__ import annotations

from typing import Any

from tests.differential.blocks import (
    Message,
    Site,
    bootstrap,
    cluster,
    endpoint,
    http_filter,
    listener,
    manager,
    per_filter,
    route,
    say,
    to,
)
from tests.differential.case import Table, reply

STATES = "type.googleapis.com/envoy.extensions.http.stateful_session"
STATUSES = ("UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED")
RETRY: Message = {
    "retry_on": "connect-failure",
    "num_retries": 3,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": 20,
}


def by_header(name: str = "x-session", **fields: Any) -> Message:
    config = {"@type": f"{STATES}.header.v3.HeaderBasedSessionState", "name": name}
    return {"session_state": {"name": "envoy.http.stateful_session.header", "typed_config": config}, **fields}


def by_cookie(strict: bool = False, **fields: Any) -> Message:
    config = {"@type": f"{STATES}.cookie.v3.CookieBasedSessionState", "cookie": {"name": "s", **fields}}
    return {"session_state": {"name": "envoy.http.stateful_session.cookie", "typed_config": config}, "strict": strict}


def own(**session: Any) -> Message:
    """A route with a session of its own."""
    return {
        "typed_per_filter_config": per_filter("stateful_session", "StatefulSessionPerRoute", stateful_session=session)
    }


def sessions(site: Site) -> Message:
    def of_status(name: str, status: str, **common: Any) -> Message:
        hosts = [endpoint(site, "a"), endpoint(site, "b", health_status=status), endpoint(site, "c")]
        assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}]}
        return cluster(site, name, load_assignment=assignment, common_lb_config=common)

    def versions() -> Message:
        hosts = [
            endpoint(site, upstream, metadata={"filter_metadata": {"envoy.lb": {"version": version}}})
            for upstream, version in (("a", "1"), ("b", "2"))
        ]
        assignment = {"cluster_name": "versions", "endpoints": [{"lb_endpoints": hosts}]}
        subsets = {"fallback_policy": "NO_FALLBACK", "subset_selectors": [{"keys": ["version"]}]}
        return cluster(site, "versions", load_assignment=assignment, lb_subset_config=subsets)

    clusters = [
        cluster(site, "several", ["a", "b", "c"]),
        cluster(site, "broken", ["refused", "a"]),
        cluster(site, "hashed", ["a", "b", "c"], lb_policy="MAGLEV"),
        versions(),
        *(of_status(f"default-{status}", status) for status in STATUSES),
        *(
            of_status(f"{accepted}-{status}", status, override_host_status={"statuses": [accepted]})
            for status in STATUSES
            for accepted in STATUSES
        ),
    ]
    disabled = {"typed_per_filter_config": per_filter("stateful_session", "StatefulSessionPerRoute", disabled=True)}
    match = {"metadata_match": {"filter_metadata": {"envoy.lb": {"version": "2"}}}}
    routes = [
        route("/strict/single", "a", **own(**by_header(strict=True))),
        route("/strict/broken", to("broken", retry_policy=RETRY), **own(**by_header(strict=True))),
        route("/strict/", "several", **own(**by_header(strict=True))),
        route("/single/disabled", "a", **disabled),
        route("/single/", "a"),
        route("/none/", "a", **own()),
        route("/cookie/path", "a", **own(**by_cookie(path="/cookie/path"))),
        route("/cookie/slash", "a", **own(**by_cookie(path="/cookie/slash/"))),
        route("/cookie/attributes", "a", **own(**by_cookie(attributes=[{"name": "SameSite", "value": "Lax"}]))),
        route("/cookie/strict/", "several", **own(**by_cookie(strict=True))),
        route("/cookie/", "a", **own(**by_cookie())),
        route("/several/", "several"),
        route("/hashed/", to("hashed", hash_policy=[{"header": {"header_name": "x-hash"}}])),
        route("/broken/", to("broken", retry_policy=RETRY)),
        route("/unreachable/", "refused"),
        route("/versions/", to("versions", **match)),
        route("/here/", say(200, "here")),
        *(
            route(f"/{one['name']}/", one["name"], **own(**by_header(strict=True)))
            for one in clusters
            if one["name"].partition("-")[2] in STATUSES
        ),
    ]
    session = http_filter("stateful_session", "StatefulSession", **by_header(), stat_prefix="sessions")
    return bootstrap(site, [listener(site, "http", manager(site, routes, filters=[session]))], clusters)


BOOTSTRAPS = {"sessions": sessions}

table = Table("sessions", "sessions")
CASES = table.cases
get = table.get

for _name in ("a", "b", "c"):
    get(f"header-{_name}", "/several/", [("x-session", f"{{address-{_name}}}")])
    get(f"header-strict-{_name}", "/strict/", [("x-session", f"{{address-{_name}}}")])
    get(f"cookie-{_name}", "/cookie/strict/", [("cookie", f"x=y; s={{cookie-{_name}}}")])
    get(f"hashed-{_name}", "/hashed/", [("x-hash", "1"), ("x-session", f"{{address-{_name}}}")])
get("hashed-without", "/hashed/", [("x-hash", "1")])
get("new", "/single/")
get("another", "/single/", [("x-session", "{address-b}")])
get("another-strict", "/strict/single", [("x-session", "{address-b}")])
get("nobody-strict", "/strict/", [("x-session", "{address-refused}")])
get("nobody-of-all", "/strict/", [("x-session", "{address-d}")])
for _number, _value in enumerate(("garbage", "garb", "****", "YQ", "YR==", "")):
    get(f"garbage-{_number}", "/single/", [("x-session", _value)])
    get(f"garbage-strict-{_number}", "/strict/single", [("x-session", _value)])
    get(f"garbage-cookie-{_number}", "/cookie/", [("cookie", f"s={_value}")])
get("twice", "/strict/", [("x-session", "{address-a}"), ("x-session", "{address-b}")])
get("quoted-cookie", "/cookie/strict/", [("cookie", 's="{cookie-b}"')])
get("old-cookie", "/cookie/strict/", [("cookie", "s={address-b}")])
get("old-cookie-of-another", "/cookie/strict/", [("cookie", "s={address-d}")])
get("new-cookie", "/cookie/")
get("cookie-with-attributes", "/cookie/attributes")
for _path in ("/cookie/path", "/cookie/path/x", "/cookie/path?x", "/cookie/pathx", "/cookie/slash", "/cookie/slash/x"):
    get(f"cookie-for-{_path}", _path)
get("disabled", "/single/disabled", [("x-session", "{address-b}")])
get("no-session", "/none/", [("x-session", "{address-b}")])
get("direct-response", "/here/", [("x-session", "{address-b}")])
get("unreachable", "/unreachable/")
on: dict[str, Any] = {"ignore": ("upstream[0].headers.x-envoy-expected-rq-timeout-ms",)}  # what the back-off left
get("broken", "/broken/", [("x-session", "{address-refused}")], **on)
get("broken-strict", "/strict/broken", [("x-session", "{address-refused}")], **on)
get("of-another-subset", "/versions/", [("x-session", "{address-a}")])
get("of-no-subset", "/versions/", [("x-session", "{address-c}")])
get("host-sets-it-too", "/single/", upstream=reply(headers=[("x-session", "mine")]))
get("host-sets-cookies-too", "/cookie/", upstream=reply(headers=[("set-cookie", "mine=1"), ("x-other", "1")]))
for _status in STATUSES:
    get(f"status-default-{_status}", f"/default-{_status}/", [("x-session", "{address-b}")])
    for _accepted in STATUSES:
        get(f"status-{_accepted}-{_status}", f"/{_accepted}-{_status}/", [("x-session", "{address-b}")])
