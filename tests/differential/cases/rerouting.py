"""A route that is found anew among filters of one name: those behind the one that asked for it run all the same."""

from __future__ import annotations

from tests.differential.blocks import Message, Site, bootstrap, http_filter, listener, manager, per_filter, route
from tests.differential.case import Table, reply
from tests.tokens import jwk, jwks, token

_ANYBODY = {"permissions": [{"any": True}], "principals": [{"any": True}]}


def rerouting(site: Site) -> Message:
    allow, deny = (
        http_filter("rbac", "RBAC", rules={"action": action, "policies": {"all": _ANYBODY}})
        for action in ("ALLOW", "DENY")
    )
    response = {"allowed_upstream_headers": {"patterns": [{"exact": "x-user"}]}}
    service = {"server_uri": {"uri": "http://c", "cluster": "c", "timeout": "2s"}, "authorization_response": response}
    asking = http_filter("ext_authz", "ExtAuthz", clear_route_cache=True, http_service=service)
    keys = {"inline_string": jwks(jwk("one", "RS256"))}
    everything = [{"match": {"prefix": "/"}, "requires": {"provider_name": "one"}}]
    plain = {"issuer": "one", "local_jwks": keys, "forward": True}
    claims = {"claim_to_headers": [{"header_name": "x-user", "claim_name": "sub"}], "clear_route_cache": True}

    def tokens(**provider: object) -> Message:
        return http_filter("jwt_authn", "JwtAuthentication", providers={"one": provider}, rules=everything)

    elsewhere = tokens(issuer="two", local_jwks=keys, from_headers=[{"name": "x-other"}])
    off = {"rbac": {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}}
    by_user = {"prefix": "/", "headers": [{"name": "x-user", "string_match": {"exact": "alice"}}]}
    own = per_filter("cors", "CorsPolicy")

    def routes(name: str) -> list[Message]:
        return [
            route(by_user, "b", typed_per_filter_config=own),
            route("/own", typed_per_filter_config=own),
            route("/"),
        ]

    cors = http_filter("cors", "Cors")
    chains = {
        "asked": [cors, allow, asking, deny],
        "asked-twice": [cors, asking, allow, asking],
        "tokens": [cors, allow, tokens(**plain, **claims), deny],
        "tokens-twice": [cors, tokens(**plain, **claims), elsewhere],
        "passed": [cors, allow, tokens(**plain, **claims), allow],
    }
    listeners = [listener(site, name, manager(site, routes(name), filters=one)) for name, one in chains.items()]
    switched = [route(by_user, "b", typed_per_filter_config={"envoy.filters.http.rbac": off["rbac"]}), route("/")]
    listeners.append(listener(site, "switched-off", manager(site, switched, filters=[tokens(**plain, **claims), deny])))
    return bootstrap(site, listeners)


BOOTSTRAPS = {"rerouting": rerouting}

_TABLE = Table("rerouting", "rerouting")
_BEARER = [("Authorization", f"Bearer {token('one', sub='alice')}")]
for _listener in ("asked", "asked-twice", "tokens", "tokens-twice", "passed", "switched-off"):
    for _path in ("/", "/own"):
        for _method, _body in (("GET", b""), ("POST", b"x" * 3000)):
            _TABLE.get(
                f"{_listener}{_path.replace('/', '-')}-{_method.lower()}",
                _path,
                _BEARER,
                listener=_listener,
                method=_method,
                body=_body,
                upstream={"c": (reply(200, b"", [("x-user", "alice")]), reply(200, b"", [("x-user", "alice")]))},
            )
CASES = _TABLE.cases
