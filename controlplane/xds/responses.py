"""Discovery responses as bytes: what many proxies get alike is serialized once, and each stream adds its nonce.

A protobuf message is the concatenation of its fields, so that a field can be appended to a serialized one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import xxhash
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse, Resource
from google.protobuf.any_pb2 import Any as AnyMessage

from controlplane.model.encoded import Encoded
from controlplane.xds.watch import Update


def version_of(resources: Iterable[Encoded]) -> str:
    """One version for a set of resources: the same set has the same version on every control plane, and after a restart."""
    digest = xxhash.xxh3_64()
    for one in sorted(resources, key=_name):
        digest.update(f"{one.name}\0{one.version}\0".encode())
    return digest.hexdigest()


def _name(one: Encoded) -> str:
    return one.name


def whole_body(type_url: str, update: Update, version: str, identifier: str) -> bytes:
    """A DiscoveryResponse without its nonce."""
    message: Any = DiscoveryResponse(version_info=version, type_url=type_url)
    message.control_plane.identifier = identifier
    message.resources.extend(AnyMessage(type_url=type_url, value=one.value) for one in update.resources.values())
    return bytes(message.SerializeToString())


def delta_body(type_url: str, update: Update, version: str, identifier: str) -> bytes:
    """A DeltaDiscoveryResponse without its nonce."""
    message: Any = DeltaDiscoveryResponse(system_version_info=version, type_url=type_url)
    message.control_plane.identifier = identifier
    message.resources.extend(
        Resource(name=one.name, version=one.version, resource=AnyMessage(type_url=type_url, value=one.value))
        for one in update.resources.values()
    )
    message.removed_resources.extend(update.removed)
    return bytes(message.SerializeToString())


def with_nonce(body: bytes, nonce: str) -> bytes:
    """The response under this nonce, which has number 5 in both dialects."""
    text = nonce.encode()
    return b"%b\x2a%c%b" % (body, len(text), text)
