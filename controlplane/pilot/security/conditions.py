"""What policies may ask for, as permissions (of what is asked for) and principals (of who asks) of Envoy's RBAC.

Each maker takes all values of a field, or of a condition, of which one is to hold. Those of requests raise `Unknown` where
there are none, on ports of TCP.
Source: https://istio.io/latest/docs/reference/config/security/conditions/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from envoy.config.core.v3 import address_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.path.match.uri_template.v3 import uri_template_match_pb2
from envoy.type.matcher.v3 import string_pb2

from controlplane.pilot.security.matchers import (
    JWT_FILTER,
    JWT_PAYLOAD,
    any_of,
    claim,
    exactly,
    header,
    in_list,
    metadata,
    quoted,
    regex,
    string_value,
    text,
)
from controlplane.pilot.security.trust_domains import with_aliases

SPIFFE = "spiffe://"
_NOT_OF_GRPC = frozenset({":scheme", "host"})  # its servers refuse an RBAC that asks for them (gRPC's proposal A41)
Permission = rbac_pb2.Permission
Principal = rbac_pb2.Principal


class Unknown(Exception):
    """A condition on what is not known where the policy is: on requests, where there are only connections, say."""


class Setting(NamedTuple):
    """Where conditions are translated: the namespace of their policy, the mesh's trust domains, whether there are requests,
    and whether gRPC itself judges these: of its RBAC only a part is there, and no other filter leaves it anything.
    """

    namespace: str
    trust_domains: tuple[str, ...]
    http: bool
    grpc: bool = False


Maker = Callable[[Setting, Sequence[str]], Any]


def either(message: Any, field: str, found: Sequence[Any]) -> Any:
    """A permission or principal for one of several; ``field`` is `or_rules` or `or_ids`."""
    if len(found) == 1:
        return found[0]
    made = message()
    chosen = getattr(made, field)
    getattr(chosen, "rules" if field == "or_rules" else "ids").extend(found)
    return made


def of_permissions(make: Callable[[Setting, str], Any], *, http: bool = False, grpc: bool = True) -> Maker:
    """A maker from that for one value."""
    return _maker(make, Permission, "or_rules", http, grpc)


def of_principals(make: Callable[[Setting, str], Any], *, http: bool = False, grpc: bool = True) -> Maker:
    """A maker from that for one value."""
    return _maker(make, Principal, "or_ids", http, grpc)


def _maker(make: Callable[[Setting, str], Any], message: Any, field: str, http: bool, grpc: bool) -> Maker:
    def made(setting: Setting, values: Sequence[str]) -> Any:
        if (http and not setting.http) or (setting.grpc and not grpc):
            raise Unknown
        return either(message, field, [make(setting, value) for value in values])

    return made


def _block(value: str) -> Any:
    network = ipaddress.ip_network(value, strict=False)
    made = address_pb2.CidrRange(address_prefix=str(network.network_address))
    made.prefix_len.value = network.prefixlen
    return made


def _authenticated(name: Any) -> Any:
    return Principal(authenticated=Principal.Authenticated(principal_name=name))


def _path(setting: Setting, value: str) -> Any:
    if "{" not in value:
        made = Permission()
        made.url_path.path.CopyFrom(text(value))
        return made
    if setting.grpc:
        raise Unknown
    template = value.replace("{**}", "**").replace("{*}", "*")
    made = Permission()
    made.uri_template.name = "uri-template"
    made.uri_template.typed_config.Pack(uri_template_match_pb2.UriTemplateMatchConfig(path_template=template))
    return made


def _principals(setting: Setting, values: Sequence[str]) -> Any:
    written = [value.removeprefix(SPIFFE) for value in values]
    found = [_authenticated(text(value, SPIFFE)) for value in with_aliases(written, setting.trust_domains)]
    return either(Principal, "or_ids", found)


def _namespace(_: Setting, value: str) -> Any:
    name = "[^/]*".join(quoted(part) for part in value.split("*"))
    return _authenticated(regex(f".*/ns/{name}/.*"))


def _service_account(setting: Setting, value: str) -> Any:
    """Without regular expressions: those for two long names are larger than Envoy takes."""
    namespace, slash, name = value.rpartition("/")
    account = f"/ns/{namespace if slash else setting.namespace}/sa/{name}"
    own, further = string_pb2.StringMatcher(suffix=account), string_pb2.StringMatcher(contains=f"{account}/")
    made = Principal()
    made.and_ids.ids.append(_authenticated(string_pb2.StringMatcher(prefix=SPIFFE)))
    made.and_ids.ids.append(either(Principal, "or_ids", [_authenticated(own), _authenticated(further)]))
    return made


def _request_principal(_: Setting, value: str) -> Any:
    """`ISSUER/SUBJECT`: the last slash parts them, for issuers are addresses. `*` stands at one end of the whole."""
    issuer, slash, subject = value.rpartition("/")
    if not slash:
        issuer, subject = ("*", value) if value.startswith("*") else (value, "*" if value.endswith("*") else "")
    wanted = {
        "iss": text(issuer) if issuer.startswith("*") or not slash else exactly(issuer),
        "sub": text(subject) if subject.endswith("*") or not slash else exactly(subject),
    }
    made = Principal()
    for name, matcher in wanted.items():
        made.and_ids.ids.add(metadata=metadata(JWT_FILTER, (JWT_PAYLOAD, name), string_value(matcher)))
    return made


def _claims(names: Sequence[str]) -> Maker:
    def made(setting: Setting, values: Sequence[str]) -> Any:
        if not setting.http or setting.grpc:
            raise Unknown
        return Principal(metadata=claim(names, values))

    return made


def _header(name: str) -> Maker:
    grpc = name.lower() not in _NOT_OF_GRPC and not name.lower().startswith("grpc-")
    return of_principals(lambda _, value: Principal(header=header(name, value)), http=True, grpc=grpc)


def _of_filter(key: str) -> Maker:
    """`experimental.envoy.filters.a.b[c]`: what the filter `envoy.filters.a.b` left under `c`; `[v]` is for lists with v."""
    name, _, entry = key.removeprefix("experimental.").removesuffix("]").partition("[")

    def made(setting: Setting, values: Sequence[str]) -> Any:
        if setting.grpc:
            raise Unknown
        wanted = [
            in_list(string_value(text(value[1:-1])))
            if value.startswith("[") and value.endswith("]")
            else string_value(text(value))
            for value in values
        ]
        return Permission(metadata=metadata(name, (entry,), any_of(wanted)))

    return made


_IP = of_principals(lambda _, value: Principal(direct_remote_ip=_block(value)))
_REMOTE_IP = of_principals(lambda _, value: Principal(remote_ip=_block(value)))
_NAMESPACE = of_principals(_namespace)
_SERVICE_ACCOUNT = of_principals(_service_account)
_REQUEST_PRINCIPAL = of_principals(_request_principal, http=True, grpc=False)
_HOST = of_permissions(lambda _, value: Permission(header=header(":authority", value, ignore_case=True)), http=True)
_METHOD = of_permissions(lambda _, value: Permission(header=header(":method", value)), http=True)
_PORT = of_permissions(lambda _, value: Permission(destination_port=int(value)))

SOURCE: tuple[tuple[str, str, Maker], ...] = (
    ("principals", "not_principals", _principals),
    ("request_principals", "not_request_principals", _REQUEST_PRINCIPAL),
    ("namespaces", "not_namespaces", _NAMESPACE),
    ("service_accounts", "not_service_accounts", _SERVICE_ACCOUNT),
    ("ip_blocks", "not_ip_blocks", _IP),
    ("remote_ip_blocks", "not_remote_ip_blocks", _REMOTE_IP),
)
"""The fields of a source, each with the one that excludes: principals."""

OPERATION: tuple[tuple[str, str, Maker], ...] = (
    ("hosts", "not_hosts", _HOST),
    ("methods", "not_methods", _METHOD),
    ("paths", "not_paths", of_permissions(_path, http=True)),
    ("ports", "not_ports", _PORT),
)
"""The fields of an operation, each with the one that excludes: permissions."""

_PRINCIPALS: dict[str, Maker] = {
    "source.ip": _IP,
    "remote.ip": _REMOTE_IP,
    "source.namespace": _NAMESPACE,
    "source.principal": _principals,
    "source.serviceAccount": _SERVICE_ACCOUNT,
    "request.auth.principal": _REQUEST_PRINCIPAL,
    "request.auth.audiences": _claims(("aud",)),
    "request.auth.presenter": _claims(("azp",)),
}
_PERMISSIONS: dict[str, Maker] = {
    "destination.ip": of_permissions(lambda _, value: Permission(destination_ip=_block(value))),
    "destination.port": _PORT,
    "connection.sni": of_permissions(lambda _, value: Permission(requested_server_name=text(value)), grpc=False),
}


def condition(key: str) -> tuple[Maker, bool]:
    """The maker for a condition's key, and whether it makes permissions (else principals)."""
    if key in _PERMISSIONS:
        return _PERMISSIONS[key], True
    if key in _PRINCIPALS:
        return _PRINCIPALS[key], False
    name, _, rest = key.partition("[")
    if name == "request.headers":
        return _header(rest.removesuffix("]")), False
    if name == "request.auth.claims":
        return _claims(rest.removesuffix("]").split("][")), False
    return _of_filter(key), True
