"""What policies mean, straight from Istio's documentation: a third opinion beside the two proxies.

Policies are plain mappings as in YAML, facts are what is known of a request or connection. Nothing here knows of RBAC.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_IDENTITY_FIELDS = {"principals", "namespaces", "serviceAccounts", "ipBlocks", "remoteIpBlocks"}
_HTTP_FIELDS = {"requestPrincipals", "hosts", "methods", "paths"}


@dataclass(frozen=True)
class Facts:
    """What is known of a request (``http``) or of a connection; ``identity`` is a SPIFFE ID without its scheme, or None."""

    identity: str | None = None
    port: int = 0
    http: bool = True
    host: str = ""
    method: str = "GET"
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    claims: Mapping[str, Any] | None = None
    source: str = "127.0.0.1"
    remote: str = "127.0.0.1"
    destination: str = "127.0.0.1"
    sni: str = ""


def verdict(policies: Sequence[Mapping[str, Any]], facts: Facts, domains: Sequence[str] = ("cluster.local",)) -> bool:
    """Whether policies of actions ALLOW and DENY let pass: what any DENY is for, not; else what any ALLOW is for, if any are."""
    enforced = [each for each in policies if not each.get("dryRun")]
    if any(matches(policy, facts, domains) for policy in enforced if policy.get("action") == "DENY"):
        return False
    allowing = [policy for policy in enforced if policy.get("action", "ALLOW") == "ALLOW"]
    return not allowing or any(matches(policy, facts, domains) for policy in allowing)


def matches(policy: Mapping[str, Any], facts: Facts, domains: Sequence[str] = ("cluster.local",)) -> bool:
    """Whether one rule of a policy holds."""
    strict = policy.get("action", "ALLOW") == "ALLOW"
    return any(_rule(rule, facts, strict, policy.get("namespace", ""), domains) for rule in policy.get("rules", ()))


def _rule(rule: Mapping[str, Any], facts: Facts, strict: bool, namespace: str, domains: Sequence[str]) -> bool:
    sources = [each["source"] for each in rule.get("from", ())]
    operations = [each["operation"] for each in rule.get("to", ())]
    conditions = rule.get("when", ())
    if not facts.http:
        http = any(_bare(name) in _HTTP_FIELDS for each in (*sources, *operations) for name in each)
        http = http or any(_of_requests(each["key"]) for each in conditions)
        if http and strict:
            return False  # a rule that speaks of requests allows no connection
    return (
        (not sources or any(_fields(each, facts, namespace, domains) for each in sources))
        and (not operations or any(_fields(each, facts, namespace, domains) for each in operations))
        and all(_condition(each, facts, namespace, domains) for each in conditions)
    )


def _of_requests(key: str) -> bool:
    return key.startswith("request.")


def _bare(name: str) -> str:
    return name[3].lower() + name[4:] if name.startswith("not") else name


def _fields(spec: Mapping[str, Sequence[str]], facts: Facts, namespace: str, domains: Sequence[str]) -> bool:
    for name, values in spec.items():
        bare = _bare(name)
        if not facts.http and bare in _HTTP_FIELDS:
            continue  # nothing is known of that: the rule holds for more
        if _field(bare, values, facts, namespace, domains) == name.startswith("not"):
            return False
    return True


def _field(name: str, values: Sequence[str], facts: Facts, namespace: str, domains: Sequence[str]) -> bool:
    if name == "principals":
        return any(_principal(value, facts.identity, domains) for value in values)
    if name == "namespaces":
        return any(_namespace(value, facts.identity) for value in values)
    if name == "serviceAccounts":
        return any(_account(value, facts.identity, namespace) for value in values)
    if name == "requestPrincipals":
        return any(_request_principal(value, facts.claims) for value in values)
    if name in ("ipBlocks", "remoteIpBlocks"):
        return _within(values, facts.source if name == "ipBlocks" else facts.remote)
    if name == "hosts":
        return any(_text(value.lower(), facts.host.lower(), empty=True) for value in values)
    if name == "methods":
        return any(_text(value, facts.method) for value in values)
    if name == "ports":
        return str(facts.port) in values
    path = facts.path.partition("?")[0]
    return any(_template(value, path) if "{" in value else _text(value, path) for value in values)


def _condition(spec: Mapping[str, Any], facts: Facts, namespace: str, domains: Sequence[str]) -> bool:
    if not facts.http and _of_requests(spec["key"]):
        return True
    for name in ("values", "notValues"):
        if name in spec and _value(spec["key"], spec[name], facts, namespace, domains) == (name == "notValues"):
            return False
    return True


_ALIKE = {
    "source.ip": "ipBlocks", "remote.ip": "remoteIpBlocks", "source.namespace": "namespaces",
    "source.principal": "principals", "source.serviceAccount": "serviceAccounts",
    "request.auth.principal": "requestPrincipals", "destination.port": "ports",
}  # fmt: skip


def _value(key: str, values: Sequence[str], facts: Facts, namespace: str, domains: Sequence[str]) -> bool:
    if key in _ALIKE:
        return _field(_ALIKE[key], values, facts, namespace, domains)
    if key == "destination.ip":
        return _within(values, facts.destination)
    if key == "connection.sni":
        return any(_text(value, facts.sni) for value in values)
    name, _, rest = key.partition("[")
    if name == "request.headers":
        header = facts.headers.get(rest[:-1].lower())
        return header is not None and any(_text(value, header, empty=True) for value in values)
    names = {"request.auth.audiences": ["aud"], "request.auth.presenter": ["azp"]}.get(key) or rest[:-1].split("][")
    found: Any = facts.claims
    for each in names:
        found = found.get(each) if isinstance(found, Mapping) else None
    if names in (["scope"], ["permission"]) and isinstance(found, str):
        found = found.split(" ")  # several in one text
    told = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return any(_text(value, each) for value in values for each in told if isinstance(each, str))


def _text(pattern: str, text: str, *, empty: bool = False) -> bool:
    if pattern == "*":
        return empty or text != ""
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    if pattern.endswith("*"):
        return text.startswith(pattern[:-1])
    return text == pattern


def _principal(pattern: str, identity: str | None, domains: Sequence[str]) -> bool:
    if identity is None:
        return False
    domain, _, rest = pattern.partition("/")
    if rest.count("/") == 3 and domain in ("cluster.local", *domains):
        return any(_text(f"{each}/{rest}", identity) for each in domains)
    return _text(pattern, identity)


def _namespace(pattern: str, identity: str | None) -> bool:
    if identity is None:
        return False
    expression = "[^/]*".join(map(re.escape, pattern.split("*")))
    return re.fullmatch(f".*/ns/{expression}/.*", identity) is not None


def _account(value: str, identity: str | None, namespace: str) -> bool:
    space, _, name = value.rpartition("/")
    return identity is not None and identity.partition("/")[2] == f"ns/{space or namespace}/sa/{name}"


def _request_principal(pattern: str, claims: Mapping[str, Any] | None) -> bool:
    if claims is None or not isinstance(claims.get("iss"), str) or not isinstance(claims.get("sub"), str):
        return False
    issuer, subject = claims["iss"], claims["sub"]
    if pattern == "*":
        return bool(issuer and subject)
    if "/" not in pattern:
        if pattern.startswith("*"):
            return subject.endswith(pattern[1:]) and bool(issuer)
        return pattern.endswith("*") and issuer.startswith(pattern[:-1]) and bool(subject)
    wanted, _, who = pattern.rpartition("/")
    return (_text(wanted, issuer) if wanted.startswith("*") else wanted == issuer) and (
        _text(who, subject) if who.endswith("*") else who == subject
    )


def _within(blocks: Iterable[str], address: str) -> bool:
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(block, strict=False) for block in blocks)


def _template(pattern: str, path: str) -> bool:
    templates = {"{*}": "[^/]+", "{**}": ".*"}
    parts = [templates.get(segment) or re.escape(segment) for segment in pattern.split("/")]
    return re.fullmatch("/".join(parts), path) is not None
