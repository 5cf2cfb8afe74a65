"""A service that has a sidecar: what the mesh must know of it, and the bootstrap file that its sidecar starts from."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import click

from controlplane.cli.api import Api, ApiError
from controlplane.model.kinds import KINDS
from controlplane.model.values import LARGEST_REGEX, LARGEST_REGEX_KEY
from controlplane.nodeagent.identity_directory import SECRET_NAME

PROXY_PORT: Final = 15001  # of the forward proxy on loopback, where nothing is captured; Istio's outbound port
ADMIN_PORT: Final = 15000

# A label of its own for the names of clusters, as Istio's proxies have it: by Envoy's rules they end at their first dot, and
# names of services have many.
_CLUSTER_NAME: Final = r"^cluster\.((outbound_?[|.][^|.]*[|.][^|.]*[|.](?:.+?\.svc\.cluster\.local|[^.]*)|[^.]*)\.)"

_AGENT_CLUSTER: Final = "sds-grpc"  # Istio's name

_NOT_A_LABEL = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Workload:
    """One instance of a service.

    Others reach it at ``address``:``port``, where its sidecar listens; the application itself is at ``app`` (HOST:PORT).
    Programs beside it reach other services through the forward proxy at 127.0.0.1:``proxy_port``.
    """

    service: str
    namespace: str
    address: str
    port: int
    app: str
    version: str = "v1"
    protocol: str = "http"
    service_account: str = ""
    proxy_port: int = PROXY_PORT
    admin_port: int = ADMIN_PORT
    labels: Mapping[str, str] = field(default_factory=dict)
    probe: Mapping[str, Any] | None = None

    @property
    def group(self) -> str:
        """The name of its WorkloadGroup."""
        return f"{self.service}-{self.version}"

    @property
    def all_labels(self) -> dict[str, str]:
        """`app`, `version` and what was asked for."""
        return {"app": self.service, "version": self.version, **self.labels}

    @property
    def account(self) -> str:
        """Its service account: its service's name, unless it is told."""
        return self.service_account or self.service

    @property
    def node_id(self) -> str:
        """Tells it apart from every other workload, those on the same machine included."""
        instance = _NOT_A_LABEL.sub("-", f"{self.group}-{self.address}-{self.port}".lower()).strip("-")
        return f"sidecar~{self.address}~{instance}.{self.namespace}~{self.namespace}.svc.cluster.local"


def parse_host_port(text: str, what: str) -> tuple[str, int]:
    """`HOST:PORT`; raises click.BadParameter."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{text!r} is not HOST:PORT", param_hint=what)
    return host.strip("[]"), int(port)


def ensure_resources(api: Api, workload: Workload) -> Workload:
    """Namespace, Service and WorkloadGroup are there; what somebody else made of them stays. The workload with the probe that
    its group has, unless it has one of its own.

    A Service that does not have the port is an error, because nobody would find the workload there.
    """
    namespace = workload.namespace
    if api.get(KINDS["Namespace"], "", namespace) is None:
        _create(api, "Namespace", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    service = api.get(KINDS["Service"], namespace, workload.service)
    if service is None:
        _create(api, "Service", service_document(workload))
    elif workload.port not in [one.get("targetPort", one["port"]) for one in service["spec"].get("ports", ())]:
        raise click.ClickException(
            f"Service {namespace}/{workload.service} has no port that leads to {workload.port}; its ports are "
            f"{', '.join(str(one['port']) for one in service['spec'].get('ports', ()))}: change --port, or the Service"
        )
    group = api.get(KINDS["WorkloadGroup"], namespace, workload.group)
    if group is None:
        _create(api, "WorkloadGroup", group_document(workload))
        return workload
    return replace(workload, probe=workload.probe or group["spec"].get("probe"))


def _create(api: Api, kind: str, document: Mapping[str, Any]) -> None:
    try:
        api.apply(KINDS[kind], document)
    except ApiError as error:
        if error.status != 409:  # another workload of the service was quicker
            raise


def service_document(workload: Workload) -> dict[str, Any]:
    """The Service that a workload belongs to, if nobody has made one."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": workload.service, "namespace": workload.namespace, "labels": {"app": workload.service}},
        "spec": {
            "selector": {"app": workload.service},
            "ports": [{"name": workload.protocol, "port": workload.port, "targetPort": workload.port}],
        },
    }


def group_document(workload: Workload) -> dict[str, Any]:
    """The WorkloadGroup whose template a workload registers itself by."""
    spec: dict[str, Any] = {
        "metadata": {"labels": workload.all_labels},
        "template": {"serviceAccount": workload.account, "ports": {workload.protocol: workload.port}},
    }
    if workload.probe is not None:
        spec["probe"] = dict(workload.probe)
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadGroup",
        "metadata": {"name": workload.group, "namespace": workload.namespace, "labels": workload.all_labels},
        "spec": spec,
    }


@dataclass(frozen=True, slots=True)
class Discovery:
    """Where a control plane's xDS is: HOST:PORT; for TLS its certificate authority (PEM), and the paths of the workload's
    own certificate chain and key. ``secret`` is a file that has both, which the proxy watches, so that they can be renewed.
    ``agent`` is the workload's socket at the node agent, by which the proxy has all of them, for xDS and for the mesh.
    """

    address: str
    authority: str = ""
    chain: str = ""
    key: str = ""
    secret: str = ""
    agent: str = ""


def bootstrap_document(workload: Workload, discovery: Discovery) -> dict[str, Any]:
    """An Envoy bootstrap: who the workload is, and where its configuration comes from."""
    source = {"ads": {}, "resource_api_version": "V3"}
    service = {"envoy_grpc": {"cluster_name": "xds-grpc"}}
    document: dict[str, Any] = {
        "node": {
            "id": workload.node_id,
            "cluster": f"{workload.service}.{workload.namespace}",
            "metadata": {
                "NAMESPACE": workload.namespace,
                "WORKLOAD_NAME": workload.group,
                "SERVICE_ACCOUNT": workload.account,
                "LABELS": workload.all_labels,
                "INSTANCE_IPS": workload.address,
                "AUTO_REGISTER_GROUP": workload.group,
                "INTERCEPTION_MODE": "NONE",
                "HTTP_PROXY_PORT": str(workload.proxy_port),
                "APP_ENDPOINTS": {str(workload.port): workload.app},
            },
        },
        "admin": {"address": _socket_address("127.0.0.1", workload.admin_port)},
        "layered_runtime": {"layers": [{"name": "mesh", "static_layer": {LARGEST_REGEX_KEY: LARGEST_REGEX}}]},
        "stats_config": {"stats_tags": [{"tag_name": "cluster_name", "regex": _CLUSTER_NAME}]},
        "dynamic_resources": {
            "lds_config": source,
            "cds_config": source,
            "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [service]},
        },
        "static_resources": {"clusters": [_xds_cluster(discovery)]},
    }
    if discovery.agent:
        document["node"]["metadata"]["SDS_AGENT"] = "true"
        document["static_resources"]["clusters"].append(_agent_cluster(discovery.agent))
    if workload.probe is not None:
        # The control plane has the sidecar probe the application, and hears how it is.
        document["hds_config"] = {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [service]}
    return document


def _socket_address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _named(host: str) -> dict[str, Any]:
    """The certificate must be for the host that is dialled."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return {"san_type": "DNS", "matcher": {"exact": host}}
    return {"san_type": "IP_ADDRESS", "matcher": {"exact": host}}


def _xds_cluster(discovery: Discovery) -> dict[str, Any]:
    host, port = parse_host_port(discovery.address, "--xds-address")
    endpoint = {"endpoint": {"address": _socket_address(host, port)}}
    cluster: dict[str, Any] = {
        "name": "xds-grpc",
        "type": "STATIC" if _named(host)["san_type"] == "IP_ADDRESS" else "STRICT_DNS",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": _http2({"interval": "30s", "timeout": "10s"}),
        "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if discovery.authority or discovery.agent:
        tls = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"type.googleapis.com/{tls}",
                "sni": host,
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    **_own_certificate(discovery),
                    **_validation(discovery, host),
                },
            },
        }
    return cluster


def _agent_cluster(path: str) -> dict[str, Any]:
    """The node agent, at the workload's own socket there."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": path}}}}
    return {
        "name": _AGENT_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": _http2({"interval": "30s", "timeout": "10s"}),
        "load_assignment": {"cluster_name": _AGENT_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _http2(keepalive: dict[str, Any]) -> dict[str, Any]:
    protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        protocol: {
            "@type": f"type.googleapis.com/{protocol}",
            "explicit_http_config": {"http2_protocol_options": {"connection_keepalive": keepalive}},
        }
    }


def _of_agent(name: str) -> dict[str, Any]:
    """A secret that the node agent has."""
    return {
        "name": name,
        "sds_config": {
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": _AGENT_CLUSTER}}],
                "set_node_on_first_message_only": True,
            },
            "resource_api_version": "V3",
        },
    }


def _validation(discovery: Discovery, host: str) -> dict[str, Any]:
    names = {"match_typed_subject_alt_names": [_named(host)]}
    if discovery.agent:
        return {
            "combined_validation_context": {
                "default_validation_context": names,
                "validation_context_sds_secret_config": _of_agent("ROOTCA"),
            }
        }
    return {"validation_context": {"trusted_ca": {"inline_string": discovery.authority}, **names}}


def _own_certificate(discovery: Discovery) -> dict[str, Any]:
    if discovery.agent:
        return {"tls_certificate_sds_secret_configs": [_of_agent("default")]}
    if discovery.secret:
        source = {"path_config_source": {"path": discovery.secret}, "resource_api_version": "V3"}
        return {"tls_certificate_sds_secret_configs": [{"name": SECRET_NAME, "sds_config": source}]}
    files = {"certificate_chain": {"filename": discovery.chain}, "private_key": {"filename": discovery.key}}
    return {"tls_certificates": [files]}
