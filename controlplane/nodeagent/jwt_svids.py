"""JWT-SVIDs of one workload: fetched, kept while they are good for long enough, and those of others judged.

Source: SPIFFE JWT-SVID, sections 2 to 4; RFC 7519.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from controlplane.nodeagent.control_plane import ControlPlane, ControlPlaneError
from controlplane.nodeagent.trust_bundle import TrustBundle

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
_MOST_KEPT: Final = 256
_LONGEST: Final = 16 * 1024  # characters of a token
_SKEW: Final = 5.0
_MARGIN: Final = 10.0  # seconds that a token must at least be good for when it is handed out
_PARAMETERS: Final = ("kty", "crv", "x", "y", "n", "e")  # of a public key, RFC 7518 section 6
_KINDS: Final[dict[str, type[ECKey] | type[RSAKey]]] = {"EC": ECKey, "RSA": RSAKey}
_SUBJECT: Final = re.compile(r"spiffe://([a-z0-9._-]{1,255})/[A-Za-z0-9._/-]+")


class BadToken(ValueError):
    """A token that is not believed; the message says why."""


class JwtSvids:
    """The tokens of one workload, by their audience."""

    def __init__(self, control_plane: ControlPlane, spiffe_id: str, clock: Callable[[], float] = time.time) -> None:
        self._control_plane = control_plane
        self._spiffe_id = spiffe_id
        self._clock = clock
        self._kept: dict[tuple[str, ...], tuple[str, float, float]] = {}  # token, issued, expires

    async def fetch(self, audience: list[str]) -> str:
        """A token for an audience: one that is kept, if at least half of its life is left; and while the control plane is away
        for as long as it is good. Raises ControlPlaneError.
        """
        key, now = tuple(sorted(set(audience))), self._clock()
        kept = self._kept.get(key)
        if kept is not None and kept[2] - now > max(_MARGIN, (kept[2] - kept[1]) / 2):
            return kept[0]
        try:
            token, _ = await self._control_plane.jwt_svid(list(key))
            claims = _unverified(token)
        except ControlPlaneError:
            if kept is not None and kept[2] - now > _MARGIN:
                return kept[0]
            raise
        except BadToken as error:
            raise ControlPlaneError(f"{self._control_plane.server} has answered with a bad token: {error}") from None
        if claims.get("sub") != self._spiffe_id:
            raise ControlPlaneError(
                f"{self._control_plane.server} has answered with the token of {claims.get('sub')!r}"
            )
        expires = claims.get("exp")
        if isinstance(expires, int | float):
            if len(self._kept) >= _MOST_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = (token, now, float(expires))
        return token

    def forget(self) -> None:
        """Keep none: whoever signed them is believed no more."""
        self._kept.clear()


def validate(token: str, audience: str, bundle: TrustBundle, now: float) -> dict[str, Any]:
    """The claims of a JWT-SVID of the bundle's trust domain that is for ``audience``. Raises BadToken."""
    if len(token) > _LONGEST or token.count(".") != 2:
        raise BadToken("not a JWT-SVID in compact form")
    header = _part(token, 0)
    if header.get("alg") not in ALGORITHMS:
        raise BadToken(f"alg: {header.get('alg')!r} is not allowed; these are: {', '.join(ALGORITHMS)}")
    if header.get("typ", "JWT") not in ("JWT", "JOSE"):
        raise BadToken(f"typ: must be JWT or JOSE, not {header.get('typ')!r}")
    if "crit" in header:
        raise BadToken("crit: extensions are not understood")
    keys = [key for key in json.loads(bundle.jwks)["keys"] if isinstance(key, dict) and _can_sign(key)]
    kid = header.get("kid")
    keys = [key for key in keys if kid is None or key.get("kid") == kid]
    if not keys:
        raise BadToken(f"kid: the trust bundle of {bundle.trust_domain} has no key {kid!r}")
    claims = _verified(token, header["alg"], keys)
    subject = claims.get("sub")
    found = _SUBJECT.fullmatch(subject) if isinstance(subject, str) else None
    if found is None:
        raise BadToken("sub: must be a SPIFFE ID")
    if found[1] != bundle.trust_domain:
        raise BadToken(f"sub: {subject} is of another trust domain than {bundle.trust_domain}")
    audiences = claims.get("aud")
    if audience not in (audiences if isinstance(audiences, list) else [audiences]):
        raise BadToken(f"aud: the token is not for {audience!r}")
    _judge_times(claims, now)
    return claims


def _verified(token: str, algorithm: str, keys: list[dict[str, Any]]) -> dict[str, Any]:
    for key in keys:
        # Only the key itself: the library knows no `use` of SPIFFE's.
        bare = {name: value for name, value in key.items() if name in _PARAMETERS}
        try:
            return dict(jwt.decode(token, _KINDS[key["kty"]].import_key(bare), algorithms=[algorithm]).claims)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    raise BadToken("the signature is not one of the trust bundle's keys")


def _judge_times(claims: dict[str, Any], now: float) -> None:
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name)
        if value is None and name != "exp":
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadToken(f"{name}: must be a time")
    if claims["exp"] + _SKEW <= now:
        raise BadToken("exp: the token has expired")
    if claims.get("nbf", now) - _SKEW > now:
        raise BadToken("nbf: the token is not good yet")


def _can_sign(key: dict[str, Any]) -> bool:
    """JWT-SVID keys are marked so; symmetric ones are none."""
    return key.get("use", "jwt-svid") in ("jwt-svid", "sig") and key.get("kty") in _KINDS


def _unverified(token: str) -> dict[str, Any]:
    if len(token) > _LONGEST or token.count(".") != 2:
        raise BadToken("not in compact form")
    return _part(token, 1)


def _part(token: str, number: int) -> dict[str, Any]:
    text = token.split(".")[number]
    try:
        found = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except ValueError:
        raise BadToken("not a JWT") from None
    if not isinstance(found, dict):
        raise BadToken("not a JWT")
    return found
