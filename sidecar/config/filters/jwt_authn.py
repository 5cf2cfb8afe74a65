"""End users by their tokens: `extensions.filters.http.jwt_authn.v3.JwtAuthentication`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from sidecar.config.core_types import parse_data_source
from sidecar.config.fields import Node
from sidecar.config.matcher import StringMatcher, header_name, parse_string_matcher
from sidecar.config.retry_policy import RetryPolicy, parse_core_retry_policy
from sidecar.config.route_match import RouteMatch, parse_route_match

TYPE = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
TYPE_PER_ROUTE = "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig"

CACHE_SIZE = 100
"""How many verified tokens a provider remembers unless `jwt_cache_config` says otherwise."""

MAX_CACHED_TOKEN = 4096
"""The largest token, in bytes, that is remembered unless `jwt_cache_config` says otherwise."""

_CLOCK_SKEW = 60
_CACHE_DURATION = 600.0
_FAILED_REFETCH = 1.0
_RETRY_ON = frozenset({"5xx", "gateway-error", "connect-failure", "reset"})
_URI = re.compile(r"https?://([^/?#\s@]+)(/\S*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class JwtHeader:
    """A header (lower case) that may carry a token, behind `value_prefix`."""

    name: bytes
    value_prefix: bytes = b""


@dataclass(frozen=True, slots=True)
class JwtCacheConfig:
    """How many verified tokens are remembered, and the largest of them in bytes."""

    jwt_cache_size: int = CACHE_SIZE
    jwt_max_token_size: int = MAX_CACHED_TOKEN


@dataclass(frozen=True, slots=True)
class JwksAsyncFetch:
    """Keys are fetched before requests need them: a listener waits for the first answer unless `fast_listener`.

    `failed_refetch_duration` is in seconds.
    """

    fast_listener: bool = False
    failed_refetch_duration: float = _FAILED_REFETCH


@dataclass(frozen=True, slots=True)
class RemoteJwks:
    """Keys that `cluster` serves at `path` of `authority`. `timeout` (0: none) and `cache_duration` are in seconds."""

    cluster: str
    authority: bytes
    path: bytes
    timeout: float
    cache_duration: float = _CACHE_DURATION
    async_fetch: JwksAsyncFetch | None = None
    retry_policy: RetryPolicy | None = None


@dataclass(frozen=True, slots=True)
class LocalJwks:
    """Keys in the configuration, `inline`, or in the file `filename`, which is read again when it changes if `watched`.

    `watched_directory` is what is looked at for changes, empty for the file itself.
    """

    inline: bytes = field(default=b"", repr=False)
    filename: str = ""
    watched: bool = False
    watched_directory: str = ""


@dataclass(frozen=True, slots=True)
class JwtProvider:
    """Who issues tokens, where requests carry them, and what is done with one that is good.

    An empty `issuer` is any; so are empty `audiences`. `max_lifetime` and `clock_skew_seconds` are in seconds, None for no
    limit. `claim_to_headers` has (header in lower case, path of the claim). Without `jwt_cache_config`, the cache has its
    default size.
    """

    name: str
    jwks: LocalJwks | RemoteJwks
    issuer: str = ""
    audiences: tuple[str, ...] = ()
    subjects: StringMatcher | None = None
    require_expiration: bool = False
    max_lifetime: float | None = None
    forward: bool = False
    from_headers: tuple[JwtHeader, ...] = ()
    from_params: tuple[bytes, ...] = ()
    from_cookies: tuple[bytes, ...] = ()
    forward_payload_header: bytes = b""
    pad_forward_payload_header: bool = False
    payload_in_metadata: str = ""
    header_in_metadata: str = ""
    failed_status_in_metadata: str = ""
    space_delimited_claims: tuple[str, ...] = ()
    claim_to_headers: tuple[tuple[bytes, str], ...] = ()
    clear_route_cache: bool = False
    clock_skew_seconds: int = _CLOCK_SKEW
    jwt_cache_config: JwtCacheConfig = JwtCacheConfig()


@dataclass(frozen=True, slots=True)
class RequireProvider:
    """A token of this provider; `audiences` stand in the stead of the provider's own unless they are empty."""

    provider: str
    audiences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RequireAny:
    """One of these is enough."""

    requirements: tuple[JwtRequirement, ...]


@dataclass(frozen=True, slots=True)
class RequireAll:
    """All of these, in order."""

    requirements: tuple[JwtRequirement, ...]


@dataclass(frozen=True, slots=True)
class AllowMissing:
    """No token, or good ones."""


@dataclass(frozen=True, slots=True)
class AllowMissingOrFailed:
    """Anything; good tokens are made use of."""


@dataclass(frozen=True, slots=True)
class RequireNothing:
    """Any request, whatever it carries."""


JwtRequirement: TypeAlias = (
    RequireProvider | RequireAny | RequireAll | AllowMissing | AllowMissingOrFailed | RequireNothing
)


@dataclass(frozen=True, slots=True)
class RequirementRule:
    """What requests that `match` need; None for nothing."""

    match: RouteMatch
    requires: JwtRequirement | None


@dataclass(frozen=True, slots=True)
class JwtAuthentication:
    """The first of `rules` that a request fits decides; else what `filter_state_rules` has for the value in the filter state
    called `filter_state_name`. `requirement_map` has those that routes may name.
    """

    providers: Mapping[str, JwtProvider]
    rules: tuple[RequirementRule, ...] = ()
    requirement_map: Mapping[str, JwtRequirement] = field(default_factory=dict)
    filter_state_name: str = ""
    filter_state_rules: Mapping[str, JwtRequirement] = field(default_factory=dict)
    bypass_cors_preflight: bool = False
    strip_failure_response: bool = False
    stat_prefix: str = ""


@dataclass(frozen=True, slots=True)
class JwtPerRoute:
    """What a route says: the requirement called `requirement_name`, or nothing is asked for if `disabled`."""

    disabled: bool = False
    requirement_name: str = ""


def parse_jwt_authn(node: Node) -> JwtAuthentication:
    """`JwtAuthentication`. Names of providers and requirements that there are not are refused."""
    providers = {name: _parse_provider(name, one) for name, one in node.map("providers").items()}
    named = {name: _parse_requirement(one, providers) for name, one in node.map("requirement_map").items()}
    state = node.child("filter_state_rules")
    return JwtAuthentication(
        providers=providers,
        rules=tuple(_parse_rule(one, providers, named) for one in node.children("rules")),
        requirement_map=named,
        filter_state_name="" if state is None else state.get("name"),
        filter_state_rules={}
        if state is None
        else {value: _parse_requirement(one, providers) for value, one in state.map("requires").items()},
        bypass_cors_preflight=node.get("bypass_cors_preflight"),
        strip_failure_response=node.get("strip_failure_response"),
        stat_prefix=node.get("stat_prefix"),
    )


def parse_jwt_per_route(node: Node) -> JwtPerRoute:
    """`PerRouteConfig`."""
    if node.which("requirement_specifier") == "disabled":
        return JwtPerRoute(disabled=node.get("disabled"))
    return JwtPerRoute(requirement_name=node.get("requirement_name"))


def _parse_provider(name: str, node: Node) -> JwtProvider:
    normalize, cache = node.child("normalize_payload_in_metadata"), node.child("jwt_cache_config")
    subjects = node.child("subjects")
    return JwtProvider(
        name=name,
        jwks=_parse_jwks(node),
        issuer=node.get("issuer"),
        audiences=node.get("audiences"),
        subjects=None if subjects is None else parse_string_matcher(subjects),
        require_expiration=node.get("require_expiration"),
        max_lifetime=node.duration("max_lifetime"),
        forward=node.get("forward"),
        from_headers=tuple(
            JwtHeader(header_name(one.get("name")), one.get("value_prefix").encode())
            for one in node.children("from_headers")
        ),
        from_params=tuple(param.encode() for param in node.get("from_params")),
        from_cookies=tuple(cookie.encode() for cookie in node.get("from_cookies")),
        forward_payload_header=header_name(node.get("forward_payload_header")),
        pad_forward_payload_header=node.get("pad_forward_payload_header"),
        payload_in_metadata=node.get("payload_in_metadata"),
        header_in_metadata=node.get("header_in_metadata"),
        failed_status_in_metadata=node.get("failed_status_in_metadata"),
        space_delimited_claims=() if normalize is None else normalize.get("space_delimited_claims"),
        claim_to_headers=tuple(
            (header_name(one.get("header_name")), one.get("claim_name")) for one in node.children("claim_to_headers")
        ),
        clear_route_cache=node.get("clear_route_cache"),
        clock_skew_seconds=node.get("clock_skew_seconds") or _CLOCK_SKEW,
        jwt_cache_config=JwtCacheConfig()
        if cache is None
        else JwtCacheConfig(
            cache.get("jwt_cache_size") or CACHE_SIZE,
            cache.get("jwt_max_token_size") or MAX_CACHED_TOKEN,
        ),
    )


def _parse_jwks(node: Node) -> LocalJwks | RemoteJwks:
    kind = node.which("jwks_source_specifier")
    source = None if kind is None else node.child(kind)
    if source is None:
        return LocalJwks()
    return _parse_remote(source) if kind == "remote_jwks" else _parse_local(source)


def _parse_local(local: Node) -> LocalJwks:
    watched = local.child("watched_directory")
    if local.which("specifier") == "filename":
        return LocalJwks(
            filename=local.get("filename"),
            watched=watched is not None,
            watched_directory="" if watched is None else watched.get("path"),
        )
    return LocalJwks(inline=parse_data_source(local))


def _parse_remote(node: Node) -> RemoteJwks:
    uri, fetch, retry = node.child("http_uri"), node.child("async_fetch"), node.child("retry_policy")
    cluster, authority, path, timeout = "", b"", b"/", 0.0
    if uri is not None:
        found = _URI.fullmatch(uri.get("uri"))
        if found is None:
            uri.refuse("is no URL", "uri", "write it as https://issuer.example/.well-known/jwks.json")
        else:
            authority, path = found[1].encode(), (found[2] or "/").encode()
        cluster = uri.get("cluster")
        uri.context.reference("cluster", cluster, uri, "cluster", may_come_later=True)
        timeout = uri.duration("timeout") or 0.0
    cache_duration = node.duration("cache_duration")
    return RemoteJwks(
        cluster,
        authority,
        path,
        timeout,
        _CACHE_DURATION if cache_duration is None else cache_duration,
        None
        if fetch is None
        else JwksAsyncFetch(fetch.get("fast_listener"), fetch.duration("failed_refetch_duration") or _FAILED_REFETCH),
        None if retry is None else _retry_policy(parse_core_retry_policy(retry)),
    )


def _retry_policy(policy: RetryPolicy) -> RetryPolicy:
    return RetryPolicy(
        retry_on=policy.retry_on or _RETRY_ON, num_retries=policy.num_retries, retry_back_off=policy.retry_back_off
    )


def _parse_rule(
    node: Node, providers: Mapping[str, JwtProvider], named: Mapping[str, JwtRequirement]
) -> RequirementRule:
    match = node.child("match")
    parsed = RouteMatch("prefix", b"/")
    if match is not None:
        for unused in ("runtime_fraction", "grpc", "dynamic_metadata"):
            if match.has(unused):
                match.refuse("has no effect in rules for tokens", unused, "remove it, or match by headers")
        parsed = parse_route_match(match)
    match node.which("requirement_type"):
        case "requires":
            requires = node.child("requires")
            assert requires is not None
            return RequirementRule(parsed, _parse_requirement(requires, providers))
        case "requirement_name":
            name = node.get("requirement_name")
            if name not in named:
                known = ", ".join(named) or "its entries"
                node.refuse(f"{name!r} is not in requirement_map", "requirement_name", f"name one of {known}")
            return RequirementRule(parsed, named.get(name))
    return RequirementRule(parsed, None)


def _parse_requirement(node: Node, providers: Mapping[str, JwtProvider]) -> JwtRequirement:
    match node.which("requires_type"):
        case "provider_name":
            return RequireProvider(_known(node, node.get("provider_name"), providers))
        case "provider_and_audiences":
            inner = node.child("provider_and_audiences")
            assert inner is not None
            return RequireProvider(_known(inner, inner.get("provider_name"), providers), inner.get("audiences"))
        case ("requires_any" | "requires_all") as kind:
            group = node.child(kind)
            assert group is not None
            inside = tuple(_parse_requirement(one, providers) for one in group.children("requirements"))
            return RequireAny(inside) if kind == "requires_any" else RequireAll(inside)
        case "allow_missing":
            node.child("allow_missing")
            return AllowMissing()
        case "allow_missing_or_failed":
            node.child("allow_missing_or_failed")
            return AllowMissingOrFailed()
        case _:
            return RequireNothing()


def _known(node: Node, name: str, providers: Mapping[str, JwtProvider]) -> str:
    if name not in providers:
        node.refuse(
            f"there is no provider {name!r}", "provider_name", f"name one of {', '.join(providers) or 'providers'}"
        )
    return name
