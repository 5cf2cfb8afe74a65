"""Pod (v1): where a workload is, and what it is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from controlplane.model.kubernetes.tolerance import Tolerant
from controlplane.model.values import Port, Str

_CONTAINER_FIELDS = frozenset(
    (
        "args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "readinessProbe",
        "resizePolicy", "resources", "restartPolicy", "restartPolicyRules", "securityContext", "startupProbe", "stdin",
        "stdinOnce", "targetContainerName", "terminationMessagePath", "terminationMessagePolicy", "tty", "volumeDevices",
        "volumeMounts", "workingDir",
    )
)  # fmt: skip


class ContainerPort(Tolerant):
    """A port of a container, which services may name."""

    container_port: Port
    name: Str | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    passed_over = frozenset(("hostIP", "hostPort"))


class Container(Tolerant):
    """A container: its name and ports."""

    name: Str
    ports: tuple[ContainerPort, ...] = ()
    merge_keys = {"ports": "containerPort"}
    passed_over = _CONTAINER_FIELDS


class Pod(Tolerant):
    """A pod's `spec`. Its addresses and whether it is ready are in the document's `status`."""

    containers: tuple[Container, ...] = ()
    service_account_name: Str | None = None
    node_name: Str | None = None
    hostname: Str | None = None
    subdomain: Str | None = None
    host_network: bool | None = None
    node_selector: Mapping[Str, Any] = Field(default_factory=dict)
    merge_keys = {"containers": "name"}
    passed_over = frozenset(
        (
            "activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy",
            "enableServiceLinks", "ephemeralContainers", "hostAliases", "hostnameOverride", "hostIPC", "hostPID", "hostUsers",
            "imagePullSecrets", "initContainers", "os", "overhead", "preemptionPolicy", "priority", "priorityClassName",
            "readinessGates", "resourceClaims", "resources", "restartPolicy", "runtimeClassName", "schedulerName",
            "schedulingGates", "securityContext", "serviceAccount", "setHostnameAsFQDN", "shareProcessNamespace",
            "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "volumes", "workloadRef",
        )
    )  # fmt: skip
