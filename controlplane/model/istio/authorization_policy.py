"""AuthorizationPolicy: who may do what (Istio reference: security/authorization-policy)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.policy_selection import TargetedPolicy
from controlplane.model.oneof import is_given
from controlplane.model.resource import Model
from controlplane.model.values import Str, header_name_complaint, is_ip_or_cidr, is_port, shown


class Source(Model):
    """Who sends: every field that is given must hold, by one of its values (for `not...`, by none)."""

    principals: tuple[Str, ...] = ()
    not_principals: tuple[Str, ...] = ()
    request_principals: tuple[Str, ...] = ()
    not_request_principals: tuple[Str, ...] = ()
    namespaces: tuple[Str, ...] = ()
    not_namespaces: tuple[Str, ...] = ()
    service_accounts: tuple[Str, ...] = ()
    not_service_accounts: tuple[Str, ...] = ()
    ip_blocks: tuple[Str, ...] = ()
    not_ip_blocks: tuple[Str, ...] = ()
    remote_ip_blocks: tuple[Str, ...] = ()
    not_remote_ip_blocks: tuple[Str, ...] = ()

    def problems(self) -> Iterable[Cause]:
        if not any(is_given(self, name) for name in type(self).model_fields):
            yield Cause("", "says nothing: name principals, namespaces, ...", Reason.REQUIRED)
        for name in ("ip_blocks", "not_ip_blocks", "remote_ip_blocks", "not_remote_ip_blocks"):
            yield from block_problems(getattr(self, name), type(self).model_fields[name].alias or name)
        for name in ("principals", "not_principals", "request_principals", "not_request_principals", "namespaces",
                     "not_namespaces"):  # fmt: skip
            yield from value_problems(getattr(self, name), type(self).model_fields[name].alias or name)
        if self.service_accounts or self.not_service_accounts:
            for other in ("principals", "not_principals", "namespaces", "not_namespaces"):
                if getattr(self, other):
                    at = type(self).model_fields[other].alias or other
                    yield Cause(at, "cannot stand beside serviceAccounts, which name the same: keep one of them")
        for name in ("service_accounts", "not_service_accounts"):
            at = type(self).model_fields[name].alias or name
            for index, account in enumerate(getattr(self, name)):
                if not account or account.count("/") > 1 or "*" in account:
                    yield Cause(
                        f"{at}[{index}]", f"{shown(account)} is not a service account: write NAME or NAMESPACE/NAME"
                    )


class Operation(Model):
    """What is asked for: every field that is given must hold, by one of its values (for `not...`, by none)."""

    hosts: tuple[Str, ...] = ()
    not_hosts: tuple[Str, ...] = ()
    ports: tuple[Str, ...] = ()
    not_ports: tuple[Str, ...] = ()
    methods: tuple[Str, ...] = ()
    not_methods: tuple[Str, ...] = ()
    paths: tuple[Str, ...] = ()
    not_paths: tuple[Str, ...] = ()

    def problems(self) -> Iterable[Cause]:
        if not any(is_given(self, name) for name in type(self).model_fields):
            yield Cause(
                "",
                "says nothing: name hosts, ports, methods or paths",
                Reason.REQUIRED,
            )
        for name in ("ports", "not_ports"):
            at = type(self).model_fields[name].alias or name
            for index, port in enumerate(getattr(self, name)):
                if not is_port(port):
                    yield Cause(
                        f"{at}[{index}]", f"{shown(port)} is not a port: write a number from 1 to 65535, in quotes"
                    )
        for name in ("hosts", "not_hosts", "methods", "not_methods"):
            yield from value_problems(getattr(self, name), type(self).model_fields[name].alias or name)
        for name in ("paths", "not_paths"):
            at = type(self).model_fields[name].alias or name
            for index, path in enumerate(getattr(self, name)):
                if complaint := path_complaint(path):
                    yield Cause(f"{at}[{index}]", complaint)


class From(Model):
    """One of several sources."""

    source: Source


class To(Model):
    """One of several operations."""

    operation: Operation


_KEYS = (
    "request.headers", "source.ip", "remote.ip", "source.namespace", "source.principal", "source.serviceAccount",
    "request.auth.principal", "request.auth.audiences", "request.auth.presenter", "request.auth.claims", "destination.ip",
    "destination.port", "connection.sni",
)  # fmt: skip


class Condition(Model):
    """An attribute and the values that it may have, or may not."""

    key: Str
    values: tuple[Str, ...] = ()
    not_values: tuple[Str, ...] = ()

    def problems(self) -> Iterable[Cause]:
        name, bracket, rest = self.key.partition("[")
        if name not in _KEYS and not name.startswith("experimental.envoy.filters."):
            yield Cause(
                "key",
                f"{shown(self.key)} is not an attribute: use one of {', '.join(_KEYS)}",
                Reason.NOT_SUPPORTED if self.key else Reason.REQUIRED,
            )
        elif name in ("request.headers", "request.auth.claims") and not (rest.endswith("]") and len(rest) > 1):
            yield Cause("key", f"{shown(self.key)} lacks its name: write {name}[NAME]")
        elif name == "request.headers" and (complaint := header_name_complaint(rest[:-1])):
            yield Cause("key", complaint)
        elif name == "request.auth.claims" and not all(rest[:-1].split("][")):
            yield Cause("key", f"{shown(self.key)} has an empty name: write {name}[NAME], or {name}[NAME][WITHIN]")
        elif name.startswith("experimental.") and not (rest.endswith("]") and len(rest) > 1):
            yield Cause("key", f"{shown(self.key)} lacks what the filter left: write {name}[NAME]")
        elif (
            bracket and name not in ("request.headers", "request.auth.claims") and not name.startswith("experimental.")
        ):
            yield Cause("key", f"{shown(self.key)} has no parts: write {name}")
        if not self.values and not self.not_values:
            yield Cause("values", "is required: give values or notValues", Reason.REQUIRED)
        for path, values in (("values", self.values), ("notValues", self.not_values)):
            if name in ("source.ip", "remote.ip", "destination.ip"):
                yield from block_problems(values, path)
            elif name == "destination.port":
                for index, port in enumerate(values):
                    if not is_port(port):
                        yield Cause(f"{path}[{index}]", f"{shown(port)} is not a port: write a number from 1 to 65535")
            else:
                yield from value_problems(values, path)


class Rule(Model):
    """Holds if one of ``from_``, one of ``to`` and all of ``when`` hold; each of them, if it is given."""

    from_: tuple[From, ...] | None = Field(default=None, alias="from")
    to: tuple[To, ...] | None = None
    when: tuple[Condition, ...] = ()

    def problems(self) -> Iterable[Cause]:
        if self.from_ is not None and not self.from_:
            yield Cause("from", "is empty: name a source, or remove it", Reason.REQUIRED)
        if self.to is not None and not self.to:
            yield Cause("to", "is empty: name an operation, or remove it", Reason.REQUIRED)


class ExtensionProvider(Model):
    """An extension provider of the mesh's configuration, by its name."""

    name: Str


class AuthorizationPolicy(TargetedPolicy):
    """What is done with requests for which one of ``rules`` holds. Without rules it holds for none: ALLOW then denies all."""

    rules: tuple[Rule, ...] = ()
    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    provider: ExtensionProvider | None = None

    def problems(self) -> Iterable[Cause]:
        yield from self.target_problems()
        if self.action == "CUSTOM":
            if self.provider is None or not self.provider.name:
                yield Cause(
                    "provider.name", "is required for action CUSTOM: name an extension provider", Reason.REQUIRED
                )
            for index, rule in enumerate(self.rules):
                yield from _custom_problems(rule, f"rules[{index}]")
        elif self.provider is not None:
            yield Cause("provider", f"is for action CUSTOM, it has no effect with {self.action}: remove it")
        if self.action in ("DENY", "CUSTOM") and not self.rules:
            message = (
                f"is required for action {self.action}: without rules nothing is ever matched, {{}} matches everything"
            )
            yield Cause("rules", message, Reason.REQUIRED)


_IDENTITIES = (
    "principals", "not_principals", "request_principals", "not_request_principals", "namespaces", "not_namespaces",
    "service_accounts", "not_service_accounts",
)  # fmt: skip


def _custom_problems(rule: Rule, at: str) -> Iterator[Cause]:
    # What others are asked for is chosen by the connection and the request alone (Istio reference, action CUSTOM).
    message = "cannot be used with action CUSTOM, which knows no identities: remove it"
    for index, each in enumerate(rule.from_ or ()):
        for name in _IDENTITIES:
            if getattr(each.source, name):
                yield Cause(f"{at}.from[{index}].source.{Source.model_fields[name].alias}", message)
    for index, condition in enumerate(rule.when):
        key = condition.key
        if key.startswith("request.auth.") or key in ("source.namespace", "source.principal", "source.serviceAccount"):
            yield Cause(f"{at}.when[{index}].key", message)


def value_problems(values: tuple[str, ...], path: str) -> Iterator[Cause]:
    """What is wrong with values that match a whole text, its beginning (`a*`), its end (`*a`) or anything (`*`)."""
    for index, value in enumerate(values):
        if not value:
            yield Cause(f"{path}[{index}]", 'is empty: write a value, or "*" for any', Reason.REQUIRED)


def block_problems(values: tuple[str, ...], path: str) -> Iterator[Cause]:
    """What is wrong with addresses and ranges of addresses."""
    for index, value in enumerate(values):
        if not is_ip_or_cidr(value):
            yield Cause(f"{path}[{index}]", f"{shown(value)} is neither an address nor a range such as 10.0.0.0/8")


_LITERAL = re.compile(
    r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]*", re.ASCII
)  # what Envoy's templates may have beside their operators


def path_complaint(path: str) -> str:
    """Why a text is no path of a policy: whole, with `*` at one end, or with the templates `{*}` (one segment) and `{**}`."""
    if not path:
        return 'is empty: write a path, or "*" for any'
    if "{" not in path and "}" not in path:
        return ""
    if not path.startswith("/"):
        return f"{shown(path)} does not begin with /: write /{{*}} for one segment, /{{**}} for all that follows"
    seen_rest = False
    first, *others = path.removeprefix("/").split("/")
    if not all(others[:-1]) or (others and not first):
        return f"{shown(path)} has an empty segment: templates have something between two slashes"
    for segment in (first, *others):
        if "{" not in segment and "}" not in segment:
            if "*" in segment:
                return f'{shown(path)} mixes "*" with templates: use {{*}} and {{**}} alone'
            if not _LITERAL.fullmatch(segment):
                return (
                    f"{shown(path)} has {shown(segment)}: write what is not a letter of a path as %XX beside templates"
                )
            continue
        if segment not in ("{*}", "{**}"):
            return f"{shown(path)} has {shown(segment)}: a template is a whole segment, {{*}} or {{**}}"
        if seen_rest:
            return f"{shown(path)} has something to match after {{**}}: that must be the last template"
        seen_rest = segment == "{**}"
    return ""
