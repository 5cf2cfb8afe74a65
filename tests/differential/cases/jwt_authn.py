"""The jwt_authn filter: tokens of every algorithm and with every fault, the places of tokens, requirement trees."""

from __future__ import annotations

import json
import time
from typing import Any

from tests import tokens
from tests.differential.blocks import (
    LOGGED,
    Message,
    Site,
    access_log,
    bootstrap,
    http_filter,
    listener,
    manager,
    per_filter,
    route,
    to,
)
from tests.differential.case import Table
from tests.tokens import altered, assemble, b64, jwk, jwks, token

NOW = int(time.time())
HOUR = 3600

ALL_KEYS = jwks(
    *(jwk("one", algorithm, kid=algorithm, alg=algorithm) for algorithm in tokens.ALGORITHMS),
)
RS = jwks(jwk("one", "RS256", kid="k1"))


def local(keys: str) -> Message:
    return {"local_jwks": {"inline_string": keys}}


def provider(**fields: Any) -> Message:
    """Tokens are remembered, for we remember them in any case, and what is counted says so."""
    return {
        "issuer": "one",
        "jwt_cache_config": {},
        **({} if "local_jwks" in fields or "remote_jwks" in fields else local(RS)),
        **fields,
    }


def rule(requires: Message | None = None, prefix: str = "/", **match: Any) -> Message:
    return {"match": {"prefix": prefix, **match}, **({"requires": requires} if requires is not None else {})}


ONE: Message = {"provider_name": "one"}
TWO: Message = {"provider_name": "two"}
MISSING: Message = {"allow_missing": {}}
FAILED: Message = {"allow_missing_or_failed": {}}


def any_of(*requirements: Message) -> Message:
    return {"requires_any": {"requirements": list(requirements)}}


def all_of(*requirements: Message) -> Message:
    return {"requires_all": {"requirements": list(requirements)}}


def only(requires: Message = ONE, **fields: Any) -> Message:
    """A filter with one provider, which every request needs."""
    return {"providers": {"one": provider(**fields)}, "rules": [rule(requires)]}


KEY_SETS: dict[str, str] = {
    "no-alg": jwks(*(jwk("one", algorithm) for algorithm in ("RS256", "ES256", "ES384", "EdDSA", "HS256"))),
    "rs-only": jwks(jwk("one", "RS256")),
    "two-kids": jwks(jwk("two", "RS256", kid="k2"), jwk("one", "RS256", kid="k1")),
    "same-kid": jwks(jwk("two", "RS256", kid="k"), jwk("one", "RS256", kid="k")),
    "with-bad": jwks({"kty": "RSA", "n": "!", "e": "AQAB"}, {"kty": "x"}, {}, jwk("one", "RS256")),
    "secret": jwks(jwk("one", "HS256")),
    "alg-other": jwks(jwk("one", "RS256", alg="PS256")),
    "es-alg-only": jwks({key: value for key, value in jwk("one", "ES384", alg="ES384").items() if key != "crv"}),
}

TREES: dict[str, Message] = {
    "one": ONE,
    "two": TWO,
    "one-for-api": {"provider_and_audiences": {"provider_name": "one", "audiences": ["api"]}},
    "one-for-none": {"provider_and_audiences": {"provider_name": "one"}},
    "any": any_of(ONE, TWO),
    "all": all_of(ONE, TWO),
    "any-missing": any_of(ONE, MISSING),
    "any-both-missing": any_of(ONE, TWO, MISSING),
    "any-failed": any_of(ONE, FAILED),
    "any-missing-failed": any_of(MISSING, FAILED),
    "missing": MISSING,
    "failed": FAILED,
    "all-missing": all_of(ONE, MISSING),
    "any-of-all": any_of(all_of(ONE, TWO), {"provider_name": "three"}),
    "all-of-any": all_of(any_of(ONE, TWO), {"provider_name": "three"}),
    "all-any-missing": all_of(any_of(ONE, MISSING), any_of({"provider_name": "three"}, MISSING)),
    "nothing": {},
    "any-header": {"provider_name": "anybody"},
}

CLAIMS: list[Message] = [
    {"header_name": f"X-Claim-{claim.replace('.', '-')}", "claim_name": claim}
    for claim in ("sub", "n", "neg", "half", "huge", "yes", "list", "map", "deep.inner", "deep", "null", "absent", "empty", "iss")
]  # fmt: skip


def jwt_authn(site: Site) -> Message:
    in_trees = {
        "one": provider(
            audiences=["web"],
            payload_in_metadata="one",
            forward=True,
            claim_to_headers=[{"header_name": "x-who", "claim_name": "sub"}],
        ),
        "two": provider(
            issuer="two",
            from_headers=[{"name": "x-two"}],
            payload_in_metadata="two",
            forward=True,
            claim_to_headers=[{"header_name": "x-who", "claim_name": "iss"}],
            **local(jwks(jwk("two", "RS256"))),
        ),
        "three": provider(
            issuer="three",
            from_params=["three"],
            forward_payload_header="x-three",
            failed_status_in_metadata="failed",
            **local(jwks(jwk("three", "ES256"))),
        ),
        "anybody": provider(
            issuer="", from_headers=[{"name": "x-any", "value_prefix": "T "}], payload_in_metadata="any"
        ),
    }
    listeners: dict[str, Message] = {
        "http": only(),
        "algorithms": only(**local(ALL_KEYS)),
        **{f"keys-{name}": only(**local(keys)) for name, keys in KEY_SETS.items()},
        "audiences": only(audiences=["https://web.test/", "api"]),
        "subjects": only(subjects={"prefix": "al"}),
        "expiration": only(require_expiration=True),
        "lifetime": only(max_lifetime="3700s"),
        "skew": only(clock_skew_seconds=5),
        "places": only(
            from_headers=[{"name": "X-Token"}, {"name": "x-named", "value_prefix": "name="}],
            from_params=["token", "other"],
            from_cookies=["session", "c2"],
        ),
        "places-forward": only(from_headers=[{"name": "X-Token"}], from_params=["token"], forward=True),
        "params": only(from_params=["token"]),
        "cookies": only(from_cookies=["session"]),
        "leaves": only(
            forward_payload_header="X-Payload",
            payload_in_metadata="payload",
            header_in_metadata="header",
            normalize_payload_in_metadata={"space_delimited_claims": ["scope", "other"]},
            claim_to_headers=CLAIMS,
        ),
        "padded": only(forward_payload_header="x-payload", pad_forward_payload_header=True, forward=True),
        "failed-status": only(failed_status_in_metadata="why", payload_in_metadata="payload"),
        "strip": {**only(), "strip_failure_response": True},
        "cors": {**only(), "bypass_cors_preflight": True},
        "trees": {
            "providers": in_trees,
            "rules": [rule(requires, f"/{name}/") for name, requires in TREES.items()],
        },
        "rules": {
            "providers": {"one": provider()},
            "requirement_map": {"named": ONE, "open": MISSING},
            "rules": [
                {"match": {"path": "/exact"}, "requires": ONE},
                {"match": {"path": "/EXACT-i", "case_sensitive": False}, "requires": ONE},
                {"match": {"path_separated_prefix": "/separated"}, "requires": ONE},
                {"match": {"safe_regex": {"regex": "/re/[0-9]+"}}, "requires": ONE},
                rule(ONE, "/headers", headers=[{"name": "x-need", "string_match": {"exact": "yes"}}]),
                rule(ONE, "/query", query_parameters=[{"name": "q", "string_match": {"exact": "1"}}]),
                {"match": {"prefix": "/named"}, "requirement_name": "named"},
                rule(None, "/open"),
                rule({}, "/empty"),
                {"match": {"prefix": "/insensitive", "case_sensitive": False}, "requires": ONE},
            ],
        },
        "cached": only(jwt_cache_config={"jwt_cache_size": 10}, payload_in_metadata="payload", forward=True),
        "small": {**only(), "stat_prefix": "small"},
        "unasked": {"providers": {"one": {"issuer": "one", **local(RS)}}, "rules": [rule(ONE)]},
        "subject-audience": only(subjects={"exact": "alice"}, audiences=["web"], require_expiration=True),
    }

    def own(**fields: Any) -> Message:
        return {"typed_per_filter_config": per_filter("jwt_authn", "PerRouteConfig", **fields)}

    routes = [
        route("/own-disabled", to("a"), **own(disabled=True)),
        route("/own-named", to("a"), **own(requirement_name="named")),
        route("/own-open", to("a"), **own(requirement_name="open")),
        route("/own-unknown", to("a"), **own(requirement_name="there is none")),
        route("/"),
    ]
    logged = {**LOGGED, "said": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn)%"}
    return bootstrap(
        site,
        [
            listener(
                site,
                name,
                manager(
                    site,
                    routes,
                    stat_prefix=name,
                    filters=[http_filter("jwt_authn", "JwtAuthentication", **fields)],
                    access_log=[access_log(site, logged)],
                    max_request_headers_kb=96,
                ),
                per_connection_buffer_limit_bytes=32768,
            )
            for name, fields in listeners.items()
        ],
    )


BOOTSTRAPS = {"jwt-authn": jwt_authn}

table = Table("jwt-authn", "jwt-authn")
CASES = table.cases


def get(name: str, text: str | None = None, target: str = "/", headers: Any = (), **options: Any) -> None:
    """A request with a token where tokens usually are."""
    bearer = [] if text is None else [("Authorization", f"Bearer {text}")]
    table.get(name, target, [*bearer, *headers], **options)


GOOD = token("one")
get("missing")
get("good", GOOD)
get("good-post", GOOD, method="POST", body=b"x" * 3000)
get("missing-head", method="HEAD")
get("missing-grpc", method="POST", body=b"x", headers=[("content-type", "application/grpc")])
get("long-path", target="/" + "x" * 400)
get("original-path", headers=[("x-envoy-original-path", "/other")])

for _algorithm in tokens.ALGORITHMS:
    _kid = {"kid": _algorithm}
    get(f"algorithm-{_algorithm}", token("one", _algorithm), listener="algorithms")
    get(f"algorithm-{_algorithm}-kid", token("one", _algorithm, header=_kid), listener="algorithms")
    get(f"algorithm-{_algorithm}-unsigned", token("one", _algorithm).rpartition(".")[0] + ".", listener="algorithms")
    get(f"algorithm-{_algorithm}-other-key", token("two", _algorithm, iss="one"), listener="algorithms")
    get(
        f"algorithm-{_algorithm}-altered",
        altered(token("one", _algorithm), 2, lambda part: ("A" if part[0] != "A" else "B") + part[1:]),
        listener="algorithms",
    )
    get(
        f"algorithm-{_algorithm}-short",
        altered(token("one", _algorithm), 2, lambda part: b64(tokens.unb64(part)[:-1])),
        listener="algorithms",
    )
    for _keys in KEY_SETS:
        get(f"keys-{_keys}-{_algorithm}", token("one", _algorithm), listener=f"keys-{_keys}")
for _keys in KEY_SETS:
    for _kid_text in ("", "k", "k1", "k2", "k3", "../k1", "k1\x00", "K1"):
        get(
            f"kid-{_kid_text.encode().hex()}-{_keys}", token("one", header={"kid": _kid_text}), listener=f"keys-{_keys}"
        )

_RSA_AS_SECRET = tokens.rsa_key("one").public_key().public_numbers()
HEADERS: dict[str, Any] = {
    "none": {"alg": "none"},
    "none-capital": {"alg": "None"},
    "lower": {"alg": "rs256"},
    "no-alg": {"typ": "JWT"},
    "alg-number": {"alg": 256},
    "alg-null": {"alg": None},
    "alg-list": {"alg": ["RS256"]},
    "alg-unknown": {"alg": "RS1"},
    "es256k": {"alg": "ES256K"},
    "kid-number": {"alg": "RS256", "kid": 1},
    "kid-null": {"alg": "RS256", "kid": None},
    "crit": {"alg": "RS256", "crit": ["exp"]},
    "jwk": {"alg": "RS256", "jwk": jwk("two", "RS256")},
    "jku": {"alg": "RS256", "jku": "http://127.0.0.1/"},
    "typ-other": {"alg": "RS256", "typ": "at+jwt"},
    "hs-for-rs": {"alg": "HS256"},
    "ps-for-rs": {"alg": "PS256"},
    "rs512-for-rs256": {"alg": "RS512"},
    "list": ["RS256"],
    "text": "RS256",
    "empty": {},
    "not-json": b"{",
    "not-utf-8": b'{"alg":"RS256","x":"\xff"}',
    "twice": b'{"alg":"none","alg":"RS256"}',
    "deep": b'{"alg":"RS256","x":' + b"[" * 200 + b"]" * 200 + b"}",
    "comment": b'{"alg":"RS256" /* x */}',
    "white": b' {"alg" : "RS256"} ',
    "after": b'{"alg":"RS256"}x',
}
_PAYLOAD = {"iss": "one", "exp": NOW + HOUR, "sub": "alice"}
for _name, _header in HEADERS.items():
    get(f"header-{_name}", assemble(_header, _PAYLOAD, "one", "RS256"))

PAYLOADS: dict[str, Any] = {
    "no-issuer": {"sub": "alice"},
    "other-issuer": {"iss": "two"},
    "issuer-number": {"iss": 1},
    "issuer-null": {"iss": None},
    "sub-number": {"iss": "one", "sub": 1},
    "jti-number": {"iss": "one", "jti": 7},
    "aud-number": {"iss": "one", "aud": 7},
    "aud-list": {"iss": "one", "aud": ["a", "b"]},
    "aud-mixed": {"iss": "one", "aud": ["a", 1]},
    "aud-map": {"iss": "one", "aud": {}},
    "list": [1],
    "text": "x",
    "empty": {},
    "not-json": b"{",
    "not-utf-8": b'{"iss":"one","x":"\xff"}',
    "twice": b'{"iss":"two","iss":"one"}',
    "surrogate": b'{"iss":"one","x":"\\ud800"}',
    "nan": b'{"iss":"one","x":NaN}',
    "infinite": b'{"iss":"one","x":1e999}',
    "large-number": b'{"iss":"one","x":123456789012345678901234567890}',
    "deep": b'{"iss":"one","x":' + b"[" * 200 + b"]" * 200 + b"}",
    "nul": b'{"iss":"one","x":"\\u0000"}',
    **{
        f"{claim}-{name}": {"iss": "one", claim: value}
        for claim in ("iat", "nbf", "exp")
        for name, value in {
            "text": str(NOW),
            "null": None,
            "true": True,
            "negative": -1,
            "zero": 0,
            "half": NOW + HOUR + 0.5,
            "float": float(NOW),
            "huge": 2**64,
            "just": 2**63,
            "list": [NOW],
        }.items()
    },
    "expired": {"iss": "one", "exp": NOW - HOUR},
    "just-expired": {"iss": "one", "exp": NOW - 30},
    "expired-beyond-skew": {"iss": "one", "exp": NOW - 65},
    "not-yet": {"iss": "one", "nbf": NOW + HOUR},
    "nearly": {"iss": "one", "nbf": NOW + 30},
    "issued-later": {"iss": "one", "iat": NOW + HOUR},
    "no-expiry": {"iss": "one"},
    "long": {"iss": "one", "exp": NOW + 10 * HOUR},
}
for _name, _payload in PAYLOADS.items():
    _text = assemble({"alg": "RS256"}, _payload, "one", "RS256")
    get(f"payload-{_name}", _text)
    if _name.startswith(("exp", "nbf", "no", "just", "near", "long", "issued")):
        for _listener in ("expiration", "lifetime", "skew"):
            get(f"payload-{_name}-{_listener}", _text, listener=_listener)

FORMS: dict[str, str] = {
    "empty": "",
    "one-part": "abc",
    "two-parts": "abc.def",
    "four-parts": GOOD + ".x",
    "dots": "..",
    "only-dots": "...",
    "no-header": "." + GOOD.split(".", 1)[1],
    "no-payload": altered(GOOD, 1, lambda part: ""),
    "header-not-base64": altered(GOOD, 0, lambda part: "!" + part),
    "payload-not-base64": altered(GOOD, 1, lambda part: "!" + part),
    "signature-not-base64": altered(GOOD, 2, lambda part: "!" + part),
    "header-length": altered(GOOD, 0, lambda part: part + "A" * (5 - len(part) % 4)),
    "signature-length": altered(GOOD, 2, lambda part: part + "AAA"),
    "standard-alphabet": altered(GOOD, 2, lambda part: part.replace("-", "+").replace("_", "/")),
    "payload-of-other": altered(GOOD, 1, lambda part: token("one", sub="eve").split(".")[1]),
    "header-of-other": altered(GOOD, 0, lambda part: b64(b'{"alg":"RS256","typ":"jwt"}')),
    "signature-of-other": altered(GOOD, 2, lambda part: token("one", sub="eve").split(".")[2]),
    "comma": GOOD + ",x",
    "space-inside": GOOD.replace(".", ". ", 1),
    "space-after": GOOD + " x",
    "quoted": f'"{GOOD}"',
    "junk-before": f"!!{GOOD}",
    "huge": token("one", x="y" * 40_000),
    "huge-junk": "x" * 60_000,
    "huge-dots": "." * 30_000,
}
for _name, _text in FORMS.items():
    get(f"form-{_name}", _text)
for _name, _value in {
    "basic": "Basic abc",
    "lower": f"bearer {GOOD}",
    "twice": f"Bearer Bearer {GOOD}",
    "no-space": f"Bearer{GOOD}",
    "two-spaces": f"Bearer  {GOOD}",
    "inside": f"x Bearer {GOOD}",
    "bare": "Bearer",
    "token": GOOD,
}.items():
    table.get(f"bearer-{_name}", headers=[("Authorization", _value)])
table.get("bearer-two", headers=[("Authorization", f"Bearer {GOOD}"), ("authorization", f"Bearer {GOOD}")])
table.get("bearer-two-bad", headers=[("Authorization", f"Bearer {GOOD}"), ("authorization", "Bearer bad")])
for _place in ("places", "places-forward"):
    table.get(f"header-two-{_place}", headers=[("x-token", GOOD), ("x-token", GOOD)], listener=_place)
    table.get(f"header-two-bad-{_place}", headers=[("x-token", GOOD), ("x-token", "bad")], listener=_place)
    table.get(f"header-bad-two-{_place}", headers=[("x-token", "bad"), ("x-token", GOOD)], listener=_place)
get("form-space-in-signature", GOOD[:-8] + " " + GOOD[-8:])
get("forged-own-disabled", None, "/own-disabled", [("x-three", "forged"), ("x-who", "me")], listener="trees")
for _target in ("/one/", "/nothing/", "/unmatched"):
    get(f"forged{_target}", GOOD, _target, [("x-three", "forged")], listener="trees")
table.get("bearer-bad-two", headers=[("Authorization", "Bearer bad"), ("authorization", f"Bearer {GOOD}")])

for _name, _aud in {
    "exact": "api",
    "with-scheme": "https://web.test/",
    "other-scheme": "http://web.test",
    "bare": "web.test",
    "slash": "api/",
    "list": ["x", "api"],
    "other": "other",
    "empty": "",
    "none": [],
    "case": "API",
}.items():
    get(f"audience-{_name}", token("one", aud=_aud), listener="audiences")
get("audience-missing", token("one", aud=None), listener="audiences")
get("audience-and-expired", token("one", aud="x", exp=NOW - HOUR), listener="audiences")
for _sub in ("alice", "bob", "al", "", None):
    get(f"subject-{_sub}", token("one", sub=_sub), listener="subjects")
for _claims in ({"sub": "bob", "aud": "x"}, {"aud": "x", "exp": None}, {"sub": "bob", "exp": None}):
    get(f"subject-audience-{'-'.join(_claims)}", token("one", **_claims), listener="subject-audience")
get("subject-bad-and-expired", token("one", sub="bob", exp=NOW - HOUR), listener="subjects")
get(
    "subject-bad-and-signature",
    altered(token("one", sub="bob"), 2, lambda part: "AAAA" + part[4:]),
    listener="subjects",
)

PLACES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "header": ("/", [("x-token", GOOD)]),
    "named": ("/", [("x-named", f"name={GOOD}")]),
    "named-inside": ("/", [("x-named", f"other;name={GOOD}")]),
    "named-without": ("/", [("x-named", GOOD)]),
    "param": (f"/p?token={GOOD}", []),
    "param-other": (f"/p?b=2&other={GOOD}&a=1", []),
    "param-two": (f"/p?token={GOOD}&token=x", []),
    "param-two-bad": (f"/p?token=x&token={GOOD}", []),
    "param-both": (f"/p?token={GOOD}&other={GOOD}", []),
    "param-encoded": (f"/p?token={GOOD.replace('.', '%2e')}", []),
    "param-name-encoded": (f"/p?%74oken={GOOD}", []),
    "param-empty": ("/p?token=", []),
    "param-flag": ("/p?token", []),
    "param-kept": (f"/p?z=%20b%26c&token={GOOD}&y=1+1&flag", []),
    "param-fragment": (f"/p?token={GOOD}#x", []),
    "cookie": ("/", [("cookie", f"session={GOOD}")]),
    "cookie-second": ("/", [("cookie", f"a=b; c2={GOOD}; d=e")]),
    "cookie-quoted": ("/", [("cookie", f'session="{GOOD}"')]),
    "cookie-two": ("/", [("cookie", f"session={GOOD}; session=x")]),
    "cookie-two-bad": ("/", [("cookie", f"session=x; session={GOOD}")]),
    "cookie-two-headers": ("/", [("cookie", "a=b"), ("cookie", f"session={GOOD}")]),
    "cookie-empty": ("/", [("cookie", "session=")]),
    "cookie-no-value": ("/", [("cookie", "session")]),
    "default": ("/", [("Authorization", f"Bearer {GOOD}")]),
    "default-param": (f"/?access_token={GOOD}", []),
    "all-good": (f"/?token={GOOD}", [("x-token", GOOD), ("cookie", f"session={GOOD}")]),
    "header-bad": (f"/?token={GOOD}", [("x-token", "bad"), ("cookie", f"session={GOOD}")]),
    "param-bad": ("/?token=a.b.c", [("x-token", GOOD), ("cookie", f"session={GOOD}")]),
    "cookie-bad": (f"/?token={GOOD}", [("x-token", GOOD), ("cookie", "session=bad")]),
}
for _name, (_target, _headers) in PLACES.items():
    for _listener in ("http", "places", "places-forward", "params", "cookies"):
        table.get(f"place-{_name}-{_listener}", _target, _headers, listener=_listener)

RICH = token(
    "one",
    scope="read write  admin",
    other=["as", "is"],
    n=42,
    neg=-7,
    half=1.5,
    huge=2**60 + 1,
    yes=True,
    list=["a", 1, None],
    map={"b": 1},
    deep={"inner": "found"},
    null=None,
    empty="",
)
FORGED = [("x-payload", "forged"), ("X-Claim-Sub", "forged"), ("x-claim-absent", "forged")]
for _listener in ("leaves", "padded", "failed-status", "cached"):
    get(f"leaves-{_listener}", RICH, listener=_listener)
    get(f"leaves-forged-{_listener}", RICH, headers=FORGED, listener=_listener)
    get(f"leaves-forged-missing-{_listener}", headers=FORGED, listener=_listener)
    get(f"leaves-nothing-{_listener}", listener=_listener)
    get(f"leaves-expired-{_listener}", token("one", exp=NOW - HOUR), listener=_listener)
    get(f"leaves-bad-{_listener}", "a.b.c", listener=_listener)
    get(f"leaves-issuer-{_listener}", token("one", iss="x"), listener=_listener)
for _scope in ("", " ", "one", 1, ["x"]):
    get(f"scope-{json.dumps(_scope)}", token("one", scope=_scope), listener="leaves")
for _length in range(4):
    get(f"padding-{_length}", token("one", x="y" * _length), listener="padded")
get("claims-sub-lines", token("one", sub="a\r\nx: y"), listener="leaves")
get("claims-sub-nul", token("one", sub="a\0"), listener="leaves")
get("claims-sub-tab", token("one", sub="a\tb"), listener="leaves")
get("claims-sub-blanks", token("one", sub="  a "), listener="leaves")
get("claims-sub-umlaut", token("one", sub="\u00e4\u20ac"), listener="leaves")
get("strip", listener="strip")
get("strip-bad", "x", listener="strip")

PREFLIGHT = [("Origin", "https://a.test"), ("Access-Control-Request-Method", "GET")]
for _listener in ("http", "cors"):
    get(f"preflight-{_listener}", headers=PREFLIGHT, method="OPTIONS", listener=_listener)
    get(f"preflight-get-{_listener}", headers=PREFLIGHT, listener=_listener)
    get(f"preflight-no-origin-{_listener}", headers=PREFLIGHT[1:], method="OPTIONS", listener=_listener)
    get(f"preflight-no-method-{_listener}", headers=PREFLIGHT[:1], method="OPTIONS", listener=_listener)
    get(f"preflight-empty-{_listener}", headers=[("Origin", ""), PREFLIGHT[1]], method="OPTIONS", listener=_listener)

IN_ONE = [("Authorization", f"Bearer {GOOD}")]
IN_TWO = [("x-two", token("two"))]
BAD_ONE = [("Authorization", f"Bearer {token('one', exp=NOW - HOUR)}")]
BAD_TWO = [("x-two", token("two", iss="nobody"))]
THREE = token("three", "ES256")
CARRIED: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "nothing": ("", []),
    "one": ("", IN_ONE),
    "two": ("", IN_TWO),
    "both": ("", IN_ONE + IN_TWO),
    "three": (f"?three={THREE}", []),
    "all": (f"?three={THREE}", IN_ONE + IN_TWO),
    "one-three": (f"?three={THREE}", IN_ONE),
    "bad-one": ("", BAD_ONE),
    "bad-two": ("", BAD_TWO),
    "both-bad": ("", BAD_ONE + BAD_TWO),
    "bad-one-good-two": ("", BAD_ONE + IN_TWO),
    "good-one-bad-two": ("", IN_ONE + BAD_TWO),
    "bad-three": ("?three=a.b.c", IN_ONE),
    "two-in-place-of-one": ("", [("Authorization", f"Bearer {token('two')}")]),
    "api": ("", [("Authorization", f"Bearer {token('one', aud='api')}")]),
    "any": ("", [("x-any", f"T {GOOD}")]),
    "any-of-nobody": ("", [("x-any", f"T {token('one', iss='nobody')}")]),
    "forged": ("", [*IN_ONE, ("x-three", "forged")]),
}
for _tree in TREES:
    for _name, (_query, _headers) in CARRIED.items():
        table.get(f"tree-{_tree}-{_name}", f"/{_tree}/{_query}", _headers, listener="trees")
for _target in (
    "/exact",
    "/exact?x=1",
    "/exact/",
    "/exact-I",
    "/separated",
    "/separated/x",
    "/separatedx",
    "/re/12",
    "/re/12?x",
    "/re/x",
    "/headers",
    "/query",
    "/query?q=1",
    "/query?q=2",
    "/named",
    "/open",
    "/empty",
    "/INSENSITIVE",
    "/other",
    "/own-disabled",
    "/own-named",
    "/own-open",
    "/own-unknown",
):
    get(f"rules-{_target}", target=_target, listener="rules")
    get(f"rules-{_target}-token", GOOD, target=_target, listener="rules")
    get(f"rules-{_target}-bad", "bad", target=_target, headers=[("X-Need", "yes")], listener="rules")
for _number in range(3):
    get(f"cached-{_number}", GOOD, listener="cached")
    get(f"unasked-{_number}", GOOD, listener="unasked")
COUNTED = ("algorithms", "audiences", "expiration", "cached", "rules", "cors", "strip", "small", "leaves", "failed-status",
           "places", "unasked")  # fmt: skip
# All but our own one (jwks_waiting_overflow), the only one that ends in this letter.
BUT_OUR_OWN = "jwt_authn.*%5B%5Ew%5D%24"
for _listener in COUNTED:  # where no case differs
    get(
        f"counted-{_listener}",
        target=f"/stats?filter=http.{_listener}..*{BUT_OUR_OWN}",
        listener="admin",
        access_log=False,
    )
