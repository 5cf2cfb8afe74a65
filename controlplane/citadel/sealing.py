"""Private keys at rest: sealed with an operator's passphrase before they go into the store, or as they are without one."""

from __future__ import annotations

import base64
import os
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

_COST: Final = 1 << 15  # with r=8 that is 32 MiB and about a tenth of a second for each guess (RFC 7914 section 2)


class CannotUnseal(Exception):
    """A key in the store is sealed, and the passphrase is missing or wrong."""


class Sealing:
    """Seals with AES-256-GCM under a key that scrypt (RFC 7914) makes of the passphrase; without a passphrase it passes
    through, and what is sealed cannot be opened.
    """

    def __init__(self, passphrase: str = "") -> None:
        self._passphrase = passphrase
        self._keys: dict[bytes, bytes] = {}  # by salt: deriving one is slow, and meant to be

    def __repr__(self) -> str:
        return f"<Sealing {'with' if self._passphrase else 'without'} a passphrase>"

    @property
    def active(self) -> bool:
        """Whether there is a passphrase."""
        return bool(self._passphrase)

    def seal(self, secret: str, purpose: str) -> Any:
        """A JSON value to keep; it opens only for the same ``purpose``."""
        if not self._passphrase:
            return secret
        salt = next(iter(self._keys), b"") or os.urandom(16)
        nonce = os.urandom(12)
        text = AESGCM(self._key(salt)).encrypt(nonce, secret.encode(), purpose.encode())
        return {"kdf": "scrypt", "n": _COST, "salt": _text(salt), "nonce": _text(nonce), "sealed": _text(text)}

    def open(self, kept: Any, purpose: str) -> str:
        """What was sealed. Raises CannotUnseal."""
        if isinstance(kept, str):
            return kept
        if not self._passphrase:
            raise CannotUnseal(
                f"the {purpose} in the store is sealed with a passphrase: give it by --ca-passphrase-file or "
                "MIZZEN_CA_PASSPHRASE"
            )
        try:
            if (kept["kdf"], kept["n"]) != ("scrypt", _COST):
                raise CannotUnseal(f"the {purpose} in the store is sealed in a way that is not known here")
            salt, nonce, text = (base64.b64decode(kept[name], validate=True) for name in ("salt", "nonce", "sealed"))
            return AESGCM(self._key(salt)).decrypt(nonce, text, purpose.encode()).decode()
        except InvalidTag:
            raise CannotUnseal(f"the passphrase is not that with which the {purpose} in the store is sealed") from None
        except (LookupError, TypeError, ValueError):
            raise CannotUnseal(f"the {purpose} in the store is damaged: restore the store from a backup") from None

    def _key(self, salt: bytes) -> bytes:
        found = self._keys.get(salt)
        if found is None:
            found = self._keys[salt] = Scrypt(salt=salt, length=32, n=_COST, r=8, p=1).derive(self._passphrase.encode())
        return found


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
