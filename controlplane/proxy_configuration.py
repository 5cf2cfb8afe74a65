"""All that a proxy gets, as one static bootstrap: what `mizzen explain` asks a sidecar's own code about.

Routes are within their listeners, endpoints within their clusters. Secrets are none of it: in place of each stands a certificate
that was made for this, so that names that must be matched are all that is left of them.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2

from controlplane.model.encoded import Encoded
from controlplane.model.proxy import Proxy, ProxyType
from controlplane.model.resource import ResourceKey
from controlplane.pilot.translator import Pilot
from controlplane.xds.inlined import inlined
from controlplane.xds.type_urls import CLUSTER, ENDPOINTS, LISTENER, ROUTES

_SLICE: Final = 100  # clusters whose endpoints are generated in one turn of the event loop
_CONTEXTS = (tls_pb2.DownstreamTlsContext, tls_pb2.UpstreamTlsContext)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a pilot has for one proxy at one moment. Nothing of it changes any more, so that any thread may read it."""

    proxy: Proxy
    trust_domain: str
    resources: Mapping[str, Mapping[str, Encoded]]
    causes: Mapping[str, Mapping[str, Collection[ResourceKey]]]


async def encoded_configuration(pilot: Pilot, proxy: Proxy) -> bytes:
    """The JSON object of `configuration_of`, made beside the event loop. The pilot belongs to the loop: what it does not keep
    yet is generated there one type after the other, so that others get their turn between, and then taken in one turn, so
    that all of it is of one mesh.
    """
    for type_url in (CLUSTER, LISTENER, ROUTES):
        pilot.resources(proxy, type_url)
        await asyncio.sleep(0)
    names = list(pilot.resources(proxy, CLUSTER))
    for start in range(0, len(names), _SLICE):
        pilot.resources(proxy, ENDPOINTS, names[start : start + _SLICE])
        await asyncio.sleep(0)
    return await asyncio.to_thread(_encoded, taken(pilot, proxy))


def configuration_of(pilot: Pilot, proxy: Proxy) -> dict[str, Any]:
    """A JSON object: who the proxy is, the `bootstrap` (a serialised `Bootstrap`, base64), and by the names of listeners and
    routes the resources that they were made from, `KIND NAMESPACE/NAME`.
    """
    return _built(taken(pilot, proxy))


def taken(pilot: Pilot, proxy: Proxy) -> Taken:
    """What the pilot has for a proxy now."""
    resources = {type_url: pilot.resources(proxy, type_url) for type_url in (CLUSTER, LISTENER, ROUTES)}
    causes = {
        type_url: {name: pilot.causes(proxy, type_url, name) for name in resources[type_url]}
        for type_url in (LISTENER, ROUTES)
    }
    resources[ENDPOINTS] = pilot.resources(proxy, ENDPOINTS, resources[CLUSTER])
    return Taken(proxy, pilot.snapshot.mesh.trust_domain, resources, causes)


def _encoded(found: Taken) -> bytes:
    return orjson.dumps(_built(found))


def _built(found: Taken) -> dict[str, Any]:
    def resources(type_url: str, names: Collection[str] | None) -> Mapping[str, Encoded]:
        return found.resources[type_url]

    proxy = found.proxy
    made: Any = Bootstrap()
    made.node.id = proxy.id
    made.node.cluster = f"{proxy.name}.{proxy.namespace}"
    static = made.static_resources
    static.listeners.extend(Listener.FromString(one.value) for one in inlined(LISTENER, resources))
    static.clusters.extend(Cluster.FromString(one.value) for one in inlined(CLUSTER, resources))
    _replace_secrets(static)
    account = proxy.service_account or str(proxy.metadata.get("SERVICE_ACCOUNT", ""))
    return {
        "proxy": proxy.id,
        "name": proxy.name,
        "namespace": proxy.namespace,
        "type": proxy.type.value,
        "addresses": list(proxy.addresses),
        "identity": f"spiffe://{found.trust_domain}/ns/{proxy.namespace}/sa/{account}" if account else "",
        "forwardProxy": str(proxy.metadata.get("HTTP_PROXY_PORT", "")),
        "intercepts": proxy.intercepts,
        "bootstrap": base64.b64encode(made.SerializeToString()).decode(),
        "causes": {"listeners": _named(found.causes[LISTENER]), "routes": _named(found.causes[ROUTES])},
    }


def matches(proxy: Proxy, namespace: str, name: str) -> bool:
    """Whether somebody means this proxy who says NAMESPACE/NAME: the workload's name, or that of its service (label `app`)."""
    return proxy.namespace == namespace and (
        name in (proxy.name, proxy.labels.get("app"), proxy.metadata.get("WORKLOAD_NAME"))
        or (proxy.type is ProxyType.ROUTER and proxy.name.startswith(name))
    )


def _named(causes: Mapping[str, Collection[ResourceKey]]) -> dict[str, list[str]]:
    return {name: [f"{key.kind} {key.namespace}/{key.name}" for key in keys] for name, keys in causes.items()}


def _replace_secrets(static: Any) -> None:
    certificates: set[str] = set()
    validations: set[str] = set()
    for socket in _transport_sockets(static):
        for kind in _CONTEXTS:
            if socket.typed_config.Is(kind.DESCRIPTOR):
                context: Any = kind.FromString(socket.typed_config.value)
                _make_static(context.common_tls_context, certificates, validations)
                socket.typed_config.Pack(context)
    for name in sorted(certificates):
        static.secrets.append(secret_pb2.Secret(name=name, tls_certificate=_certificate()))
    for name in sorted(validations):
        made: Any = secret_pb2.Secret(name=name)
        made.validation_context.trusted_ca.inline_bytes = _stand_in()[0]
        static.secrets.append(made)


def _transport_sockets(static: Any) -> Iterator[Any]:
    for listener in static.listeners:
        chains = [*listener.filter_chains]
        if listener.HasField("default_filter_chain"):
            chains.append(listener.default_filter_chain)
        yield from (chain.transport_socket for chain in chains if chain.HasField("transport_socket"))
    for cluster in static.clusters:
        if cluster.HasField("transport_socket"):
            yield cluster.transport_socket
        yield from (match.transport_socket for match in cluster.transport_socket_matches)


def _make_static(common: Any, certificates: set[str], validations: set[str]) -> None:
    if common.tls_certificates:
        del common.tls_certificates[:]
        common.tls_certificates.append(_certificate())
    for reference in common.tls_certificate_sds_secret_configs:
        reference.ClearField("sds_config")
        certificates.add(reference.name)
    for reference in _validation_references(common):
        reference.ClearField("sds_config")
        validations.add(reference.name)
    if common.HasField("validation_context") and common.validation_context.HasField("trusted_ca"):
        common.validation_context.trusted_ca.inline_bytes = _stand_in()[0]


def _validation_references(common: Any) -> Iterable[Any]:
    if common.HasField("validation_context_sds_secret_config"):
        yield common.validation_context_sds_secret_config
    if common.HasField("combined_validation_context"):
        yield common.combined_validation_context.validation_context_sds_secret_config


def _certificate() -> Any:
    chain, key = _stand_in()
    made: Any = common_pb2.TlsCertificate()
    made.certificate_chain.inline_bytes = chain
    made.private_key.inline_bytes = key
    return made


@lru_cache(maxsize=1)
def _stand_in() -> tuple[bytes, bytes]:
    """A certificate and its key that nobody trusts, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stands for a secret")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private
