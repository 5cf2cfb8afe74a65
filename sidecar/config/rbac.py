"""Role-based access control: `envoy.config.rbac.v3.RBAC`, for the HTTP filter and the network filter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import Literal, TypeAlias, TypeVar

from sidecar.config.address import CidrRange, parse_cidr_ranges
from sidecar.config.cel import CelCondition, parse_condition
from sidecar.config.fields import Node
from sidecar.config.matcher import (
    HeaderMatcher,
    MetadataMatcher,
    PathMatcher,
    StringMatcher,
    parse_header_matcher,
    parse_metadata_matcher,
    parse_path_matcher,
    parse_string_matcher,
)
from sidecar.config.tls_secrets import SubjectAltNameMatcher, parse_san_matcher
from sidecar.config.uri_template import parse_uri_template

_Rule = TypeVar("_Rule")
_Instead = TypeVar("_Instead")


@dataclass(frozen=True, slots=True)
class AnyRule:
    """Always holds."""


@dataclass(frozen=True, slots=True)
class AndPermissions:
    """Every one must hold."""

    rules: tuple[Permission, ...]


@dataclass(frozen=True, slots=True)
class OrPermissions:
    """One at least must hold."""

    rules: tuple[Permission, ...]


@dataclass(frozen=True, slots=True)
class NotPermission:
    """Must not hold."""

    rule: Permission


@dataclass(frozen=True, slots=True)
class DestinationIp:
    """The address that the downstream connected to."""

    range: CidrRange


@dataclass(frozen=True, slots=True)
class DestinationPortRange:
    """The port that the downstream connected to: `start` up to, not including, `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class RequestedServerName:
    """The name in the TLS ClientHello, as the listener filter saw it; empty without one."""

    name: StringMatcher


@dataclass(frozen=True, slots=True)
class SourcedMetadata:
    """The request's dynamic metadata (DYNAMIC) or the metadata of its route (ROUTE)."""

    matcher: MetadataMatcher
    source: Literal["DYNAMIC", "ROUTE"] = "DYNAMIC"


@dataclass(frozen=True, slots=True)
class AndPrincipals:
    """Every one must hold."""

    ids: tuple[Principal, ...]


@dataclass(frozen=True, slots=True)
class OrPrincipals:
    """One at least must hold."""

    ids: tuple[Principal, ...]


@dataclass(frozen=True, slots=True)
class NotPrincipal:
    """Must not hold."""

    id: Principal


@dataclass(frozen=True, slots=True)
class Authenticated:
    """A TLS peer with a certificate whose URI SAN, DNS SAN or subject fits; None: any. Without TLS it never holds."""

    principal_name: StringMatcher | None


@dataclass(frozen=True, slots=True)
class PeerIp:
    """The downstream's address.

    `kind`: `direct_remote_ip` is the peer of the connection; `remote_ip` the one that trusted X-Forwarded-For or PROXY
    protocol names, else the peer; `source_ip` the connection's remote address after PROXY protocol.
    """

    kind: Literal["direct_remote_ip", "remote_ip", "source_ip"]
    range: CidrRange


@dataclass(frozen=True, slots=True)
class FilterState:
    """What a filter left under `key`, as a string, or as an address in one of `ranges`."""

    key: str
    string: StringMatcher | None = None
    ranges: tuple[CidrRange, ...] = ()


@dataclass(frozen=True, slots=True)
class MtlsAuthenticated:
    """A TLS peer with a certificate that was validated; one of its names must fit `san_matcher`, if there is one."""

    san_matcher: SubjectAltNameMatcher | None = None


Permission: TypeAlias = (
    AnyRule
    | AndPermissions
    | OrPermissions
    | NotPermission
    | HeaderMatcher
    | PathMatcher
    | DestinationIp
    | DestinationPortRange
    | RequestedServerName
    | SourcedMetadata
)
Principal: TypeAlias = (
    AnyRule
    | AndPrincipals
    | OrPrincipals
    | NotPrincipal
    | Authenticated
    | PeerIp
    | HeaderMatcher
    | PathMatcher
    | SourcedMetadata
    | FilterState
    | MtlsAuthenticated
)


@dataclass(frozen=True, slots=True)
class Policy:
    """Fits a request when one of its permissions and one of its principals do, and the condition holds."""

    name: str
    permissions: tuple[Permission, ...]
    principals: tuple[Principal, ...]
    condition: CelCondition | None = None


@dataclass(frozen=True, slots=True)
class Rbac:
    """What happens when a policy fits: ALLOW lets only such requests pass, DENY only the others, LOG all.

    LOG marks fitting ones with the dynamic metadata `access_log_hint`. The policies are asked in the order of their
    names, and the first one that fits is the one that counts and logs name.
    """

    action: Literal["ALLOW", "DENY", "LOG"]
    policies: tuple[Policy, ...]


_ANY = AnyRule()
_NO_RANGE = IPv6Network("::/128")


def parse_rbac(node: Node) -> Rbac:
    """`config.rbac.v3.RBAC`, all but audit loggers: these are refused."""
    action = node.enum("action")
    policies = tuple(_parse_policy(name, policy) for name, policy in node.map("policies").items())
    return Rbac("LOG" if action == "LOG" else "DENY" if action == "DENY" else "ALLOW", policies)


def _parse_policy(name: str, node: Node) -> Policy:
    return Policy(
        name,
        tuple(map(_parse_permission, node.children("permissions"))),
        tuple(map(_parse_principal, node.children("principals"))),
        parse_condition(node) if any(map(node.has, ("condition", "checked_condition", "cel_config"))) else None,
    )


def _parse_permission(node: Node) -> Permission:
    match node.which("rule"):
        case ("and_rules" | "or_rules") as kind:
            inner = node.child(kind)
            rules = () if inner is None else tuple(map(_parse_permission, inner.children("rules")))
            return AndPermissions(rules) if kind == "and_rules" else OrPermissions(rules)
        case "not_rule":
            return NotPermission(_in(node, "not_rule", _parse_permission, _ANY))
        case "any":
            node.get("any")
            return _ANY
        case "header":
            return _in(node, "header", parse_header_matcher, HeaderMatcher(b"", False))
        case "url_path":
            return _in(node, "url_path", parse_path_matcher, _NO_PATH)
        case "uri_template":
            return _in(node, "uri_template", parse_uri_template, None) or _NO_PATH
        case "destination_ip":
            return DestinationIp(_in(node, "destination_ip", _parse_range, _NO_RANGE))
        case "destination_port":
            port = node.get("destination_port")
            return DestinationPortRange(port, port + 1)
        case "destination_port_range":
            return _in(node, "destination_port_range", _parse_port_range, DestinationPortRange(0, 0))
        case "requested_server_name":
            return RequestedServerName(parse_string_matcher(node.child("requested_server_name")))
        case "metadata":
            return SourcedMetadata(_in(node, "metadata", parse_metadata_matcher, _NO_METADATA))
        case "sourced_metadata":
            return _in(node, "sourced_metadata", _parse_sourced_metadata, SourcedMetadata(_NO_METADATA))
        case _:
            return NotPermission(_ANY)


def _parse_principal(node: Node) -> Principal:
    match node.which("identifier"):
        case ("and_ids" | "or_ids") as kind:
            inner = node.child(kind)
            ids = () if inner is None else tuple(map(_parse_principal, inner.children("ids")))
            return AndPrincipals(ids) if kind == "and_ids" else OrPrincipals(ids)
        case "not_id":
            return NotPrincipal(_in(node, "not_id", _parse_principal, _ANY))
        case "any":
            node.get("any")
            return _ANY
        case "authenticated":
            return _in(node, "authenticated", _parse_authenticated, Authenticated(None))
        case ("direct_remote_ip" | "remote_ip" | "source_ip") as kind:
            return PeerIp(kind, _in(node, kind, _parse_range, _NO_RANGE))
        case "header":
            return _in(node, "header", parse_header_matcher, HeaderMatcher(b"", False))
        case "url_path":
            return _in(node, "url_path", parse_path_matcher, _NO_PATH)
        case "metadata":
            return SourcedMetadata(_in(node, "metadata", parse_metadata_matcher, _NO_METADATA))
        case "sourced_metadata":
            return _in(node, "sourced_metadata", _parse_sourced_metadata, SourcedMetadata(_NO_METADATA))
        case "filter_state":
            return _in(node, "filter_state", _parse_filter_state, NotPrincipal(_ANY))
        case "custom":
            return _in(node, "custom", _parse_custom, NotPrincipal(_ANY))
        case _:
            return NotPrincipal(_ANY)


_NO_PATH = PathMatcher(StringMatcher("exact", b""))
_NO_METADATA = MetadataMatcher("", (), StringMatcher("exact", b""))


def _in(node: Node, field: str, parse: Callable[[Node], _Rule], otherwise: _Instead) -> _Rule | _Instead:
    inner = node.child(field)
    return otherwise if inner is None else parse(inner)


def _parse_range(node: Node) -> CidrRange:
    ranges = parse_cidr_ranges((node,))
    return ranges[0] if ranges else _NO_RANGE


def _parse_port_range(node: Node) -> DestinationPortRange:
    start, end = node.get("start"), node.get("end")
    if not 0 <= start < end <= 65536:
        node.refuse(f"is no range of ports: {start} up to, not including, {end}", do="let 0 <= start < end <= 65536")
    return DestinationPortRange(start, end)


def _parse_authenticated(node: Node) -> Authenticated:
    name = node.child("principal_name")
    return Authenticated(None if name is None else parse_string_matcher(name))


_MTLS = "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config"


def _parse_filter_state(node: Node) -> Principal:
    key = node.get("key")
    if node.which("matcher") == "address_match":
        addresses = node.child("address_match")
        return FilterState(key, None, () if addresses is None else parse_cidr_ranges(addresses.children("ranges")))
    return FilterState(key, parse_string_matcher(node.child("string_match")))


def _parse_custom(node: Node) -> Principal:
    extension = node.extension(known=(_MTLS,))
    if extension is None:
        return NotPrincipal(_ANY)
    san_matcher = extension.child("san_matcher")
    if san_matcher is not None:
        extension.get("any_validated_client_certificate")
        return MtlsAuthenticated(parse_san_matcher(san_matcher))
    if not extension.get("any_validated_client_certificate"):
        extension.refuse("asks for nothing", do="set san_matcher or any_validated_client_certificate")
    return MtlsAuthenticated()


def _parse_sourced_metadata(node: Node) -> SourcedMetadata:
    source: Literal["DYNAMIC", "ROUTE"] = "ROUTE" if node.enum("metadata_source") == "ROUTE" else "DYNAMIC"
    return SourcedMetadata(_in(node, "metadata_matcher", parse_metadata_matcher, _NO_METADATA), source)
