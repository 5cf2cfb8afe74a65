"""RequestAuthentication: which JSON Web Tokens are accepted (Istio reference: security/request_authentication)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.policy_selection import TargetedPolicy
from controlplane.model.resource import Model
from controlplane.model.values import Bool, Duration, Str, header_name_complaint, shown


class JWTHeader(Model):
    """A header that has a token, and what stands before the token in it."""

    name: Str
    prefix: Str | None = None

    def problems(self) -> Iterable[Cause]:
        if complaint := header_name_complaint(self.name):
            yield Cause("name", complaint)


class ClaimToHeader(Model):
    """A claim that goes to the workload as a header."""

    header: Str
    claim: Str

    def problems(self) -> Iterable[Cause]:
        if complaint := header_name_complaint(self.header):
            yield Cause("header", complaint)
        if not self.claim:
            yield Cause("claim", "is required: name the claim, with dots for those within others", Reason.REQUIRED)


class JWTRule(Model):
    """An issuer, where its keys are, and where its tokens are in requests."""

    issuer: Str | None = None
    audiences: tuple[Str, ...] = ()
    jwks_uri: Str | None = None
    jwks: Str | None = None
    from_headers: tuple[JWTHeader, ...] = ()
    from_params: tuple[Str, ...] = ()
    from_cookies: tuple[Str, ...] = ()
    output_payload_to_header: Str | None = None
    forward_original_token: Bool | None = None
    output_claim_to_headers: tuple[ClaimToHeader, ...] = ()
    timeout: Duration | None = None
    space_delimited_claims: tuple[Str, ...] = ()

    @property
    def is_discovered(self) -> bool:
        """Whether the issuer is asked where its keys are (OpenID Connect Discovery)."""
        return bool(self.issuer) and not self.jwks and not self.jwks_uri

    def problems(self) -> Iterable[Cause]:
        if not self.issuer and not self.jwks_uri:
            yield Cause(
                "issuer", "is required without jwksUri: name who makes the tokens (their claim iss)", Reason.REQUIRED
            )
        if self.is_discovered and self.issuer:
            try:
                parts = urlsplit(self.issuer)
                asked = parts.scheme == "https" and bool(parts.hostname) and (parts.port or 443) > 0
                asked = asked and not (parts.query or parts.fragment or parts.username is not None)
            except ValueError:
                asked = False
            if not asked or not self.issuer.isprintable() or " " in self.issuer:
                text = (
                    "is required: only issuers that are addresses, as https://issuer.example, are asked for their keys"
                )
                yield Cause("jwksUri", text, Reason.REQUIRED)
        yield from self._key_problems()
        for name, values in (
            ("audiences", self.audiences),
            ("fromParams", self.from_params),
            ("fromCookies", self.from_cookies),
            ("spaceDelimitedClaims", self.space_delimited_claims),
        ):
            for index, value in enumerate(values):
                if not value:
                    yield Cause(f"{name}[{index}]", "is empty: write it out, or remove it", Reason.REQUIRED)
        if self.output_payload_to_header and (complaint := header_name_complaint(self.output_payload_to_header)):
            yield Cause("outputPayloadToHeader", complaint)

    def _key_problems(self) -> Iterator[Cause]:
        if self.jwks_uri and self.jwks:
            yield Cause("jwks", "jwksUri and jwks exclude each other: keep one of them")
        if self.jwks_uri:
            try:
                parts = urlsplit(self.jwks_uri)
                right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
                right = right and self.jwks_uri.isascii() and self.jwks_uri.isprintable() and " " not in self.jwks_uri
                unfit = "_" in (parts.hostname or "")
            except ValueError:
                right = unfit = False
            if not right:
                yield Cause(
                    "jwksUri", f"{shown(self.jwks_uri)} is not an address: write http:// or https:// and a host"
                )
            elif unfit:
                yield Cause(
                    "jwksUri", f"{shown(self.jwks_uri)} has _ in its host, which proxies refuse: use a name without it"
                )
        if self.jwks:
            try:
                keys = json.loads(self.jwks)
                right = isinstance(keys, dict) and isinstance(keys.get("keys"), list)
            except ValueError:
                right = False
            if not right:
                yield Cause("jwks", 'is not a set of keys: write JSON such as {"keys": [...]} (RFC 7517 section 5)')


class RequestAuthentication(TargetedPolicy):
    """Requests with a token that none of the rules accepts are refused; those without one are let pass."""

    jwt_rules: tuple[JWTRule, ...] = ()

    def problems(self) -> Iterable[Cause]:
        yield from self.target_problems()
