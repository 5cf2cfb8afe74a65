"""Identities of trust domains that count as one: `trustDomain` and `trustDomainAliases` of the mesh's configuration.

Source: https://istio.io/latest/docs/tasks/security/authorization/authz-td-migration/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LOCAL = "cluster.local"
"""In policies it stands for the mesh's own trust domain, whatever that is."""


def with_aliases(principals: Iterable[str], domains: Sequence[str]) -> list[str]:
    """Principals (`DOMAIN/ns/NAMESPACE/sa/ACCOUNT`), those of one of ``domains`` in all of them.

    What begins with `*` or is of another form says nothing of a trust domain, and stays as it is, and so do others' domains.
    """
    found: dict[str, None] = {}
    for principal in principals:
        domain, slash, rest = principal.partition("/")
        if rest.count("/") != 3 or domain == "*" or not (domain == LOCAL or _one_of(domain, domains)):
            found[principal] = None
            continue
        for each in domains:
            same = domain.startswith("*") and each.endswith(domain[1:])
            found[principal if same else f"{each}{slash}{rest}"] = None
    return list(found)


def _one_of(domain: str, domains: Sequence[str]) -> bool:
    if domain.startswith("*"):
        return any(each.endswith(domain[1:]) for each in domains)
    if domain.endswith("*"):
        return any(each.startswith(domain[:-1]) for each in domains)
    return domain in domains
