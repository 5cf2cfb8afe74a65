"""Secrets in a file of their own: a `DiscoveryResponse` of `Secret`s in YAML, JSON or (`.pb`) serialised, as Envoy reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError

from sidecar.config.constraints import check
from sidecar.config.extensions import message_class
from sidecar.config.fields import Context, Node
from sidecar.config.places import Places
from sidecar.config.problems import ConfigurationError, Problem
from sidecar.config.source import Source
from sidecar.config.tls_secrets import CertificateValidationContext, Secret, TlsCertificate, parse_secret

SECRET: Final = "envoy.extensions.transport_sockets.tls.v3.Secret"
_RESPONSE: Final = "envoy.service.discovery.v3.DiscoveryResponse"

_Kind = TypeVar("_Kind", TlsCertificate, CertificateValidationContext)


def load_secrets(path: str) -> tuple[Secret, ...]:
    """All secrets in the file. Raises OSError, and ConfigurationError with every problem."""
    content = Path(path).read_bytes()
    message: Any = message_class(_RESPONSE)()
    problems: list[Problem] = []
    source = None
    if path.endswith(".pb"):
        try:
            message.ParseFromString(content)
        except DecodeError:
            problems.append(Problem(path, 0, 0, "", f"does not hold a serialised {_RESPONSE}", "name YAML or JSON so"))
    else:
        source = Source(content, path)
        source.read(message, problems)
    context = Context(path, None if source is None else Places([source]))
    context.problems += problems
    context.raise_problems()
    check(message, context.refuse)
    secrets = []
    with context:
        root = Node(message, "", context)
        for name in ("version_info", "type_url", "nonce", "canary"):
            root.get(name)
        for packed in root.children("resources"):
            node = packed.unpacked((SECRET,))
            if node is not None:
                secrets.append(parse_secret(node))
    return tuple(secrets)


def load_certificate_secret(path: str, name: str) -> TlsCertificate:
    """The certificate called `name`; without a name, the only one. Raises OSError and ValueError."""
    return _find(path, name, TlsCertificate, "TLS certificate")


def load_validation_secret(path: str, name: str) -> CertificateValidationContext:
    """The validation context called `name`; without a name, the only one. Raises OSError and ValueError."""
    return _find(path, name, CertificateValidationContext, "validation context")


def _find(path: str, name: str, kind: type[_Kind], words: str) -> _Kind:
    try:
        found = [secret for secret in load_secrets(path) if isinstance(secret.value, kind)]
    except ConfigurationError as error:
        raise ValueError(str(error)) from None
    named = [secret for secret in found if secret.name == name] if name else found
    if len(named) != 1:
        there = ", ".join(repr(secret.name) for secret in found) or "none"
        wanted = f"one {words}" if not name else f"a {words} called {name!r}"
        raise ValueError(f"does not hold {wanted}; there: {there}")
    value = named[0].value
    assert isinstance(value, kind)
    return value
