"""Messages of analysis: Istio's codes, names and levels, so that people can look them up.

Source: https://istio.io/latest/docs/reference/config/analysis/
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from controlplane.model.resource import ResourceKey


class Level(StrEnum):
    """How bad it is."""

    ERROR = "Error"
    WARNING = "Warning"
    INFO = "Info"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Level).index(self)


@dataclass(frozen=True, slots=True)
class MessageType:
    """What Istio calls a kind of message."""

    code: str
    name: str
    level: Level

    @property
    def url(self) -> str:
        """Where Istio's documentation explains it."""
        return f"https://istio.io/latest/docs/reference/config/analysis/{self.code.lower()}/"


@dataclass(frozen=True, slots=True)
class Message:
    """One finding: of which resource, at which field of it (or "" for all of it), and what to do about it."""

    type: MessageType
    key: ResourceKey
    text: str
    path: str = ""

    def __str__(self) -> str:
        where = f"{self.key.kind} {self.key.namespace}/{self.key.name}" if self.key.namespace else str(self.key)
        return (
            f"{self.type.level.value} [{self.type.code}] ({where}) {f'{self.path}: ' if self.path else ''}{self.text}"
        )

    def for_status(self) -> dict[str, Any]:
        """An entry of `status.validationMessages`: Istio's AnalysisMessageBase, with the text added."""
        return {
            "type": {"name": self.type.name, "code": self.type.code},
            "level": self.type.level.name,
            "documentationUrl": self.type.url,
            "message": f"{self.path}: {self.text}" if self.path else self.text,
        }


def _type(number: int, name: str, level: Level) -> MessageType:
    return MessageType(f"IST{number:04}", name, level)


DEPRECATED = _type(2, "Deprecated", Level.WARNING)
NOT_FOUND = _type(101, "ReferencedResourceNotFound", Level.ERROR)
NAMESPACE_NOT_INJECTED = _type(102, "NamespaceNotInjected", Level.INFO)
POD_MISSING_PROXY = _type(103, "PodMissingProxy", Level.WARNING)
SCHEMA_ERROR = _type(106, "SchemaValidationError", Level.ERROR)
MISPLACED_ANNOTATION = _type(107, "MisplacedAnnotation", Level.WARNING)
UNKNOWN_ANNOTATION = _type(108, "UnknownAnnotation", Level.WARNING)
CONFLICTING_HOSTS = _type(109, "ConflictingMeshGatewayVirtualServiceHosts", Level.ERROR)
CONFLICTING_SIDECARS = _type(110, "ConflictingSidecarWorkloadSelectors", Level.ERROR)
SEVERAL_DEFAULT_SIDECARS = _type(111, "MultipleSidecarsWithoutWorkloadSelectors", Level.ERROR)
PORT_REQUIRED = _type(112, "VirtualServiceDestinationPortSelectorRequired", Level.ERROR)
MTLS_CONFLICT = _type(113, "MTLSPolicyConflict", Level.ERROR)
SEVERAL_PROTOCOLS = _type(116, "DeploymentAssociatedToMultipleServices", Level.WARNING)
PORT_NAME = _type(118, "PortNameIsNotUnderNamingConvention", Level.INFO)
JWT_PORT = _type(119, "JwtFailureDueToInvalidServicePortPrefix", Level.WARNING)
SEVERAL_INJECTION_LABELS = _type(123, "NamespaceMultipleInjectionLabels", Level.WARNING)
INVALID_ANNOTATION = _type(125, "InvalidAnnotation", Level.WARNING)
NO_WORKLOADS = _type(127, "NoMatchingWorkloadsFound", Level.WARNING)
UNVERIFIED_SERVER = _type(128, "NoServerCertificateVerificationDestinationLevel", Level.WARNING)
UNVERIFIED_SERVER_PORT = _type(129, "NoServerCertificateVerificationPortLevel", Level.WARNING)
UNREACHABLE_RULE = _type(130, "VirtualServiceUnreachableRule", Level.WARNING)
INEFFECTIVE_MATCH = _type(131, "VirtualServiceIneffectiveMatch", Level.INFO)
HOST_NOT_IN_GATEWAY = _type(132, "VirtualServiceHostNotFoundInGateway", Level.WARNING)
SCHEMA_WARNING = _type(133, "SchemaWarning", Level.WARNING)
ADDRESSES_REQUIRED = _type(134, "ServiceEntryAddressesRequired", Level.WARNING)
DEPRECATED_ANNOTATION = _type(135, "DeprecatedAnnotation", Level.INFO)
CONFLICTING_PORTS = _type(137, "DeploymentConflictingPorts", Level.WARNING)
DUPLICATE_CERTIFICATE = _type(138, "GatewayDuplicateCertificate", Level.WARNING)
SUBSETS_NOT_AT_GATEWAY = _type(140, "IngressRouteRulesNotAffected", Level.WARNING)
CONFLICTING_GATEWAYS = _type(145, "ConflictingGateways", Level.ERROR)
CLAIMS_WITHOUT_AUTHENTICATION = _type(149, "JwtClaimBasedRoutingWithoutRequestAuthN", Level.ERROR)
EXTERNAL_NAME_PORT = _type(150, "ExternalNameServiceTypeInvalidPortName", Level.WARNING)
RELATIVE_PATCH = _type(151, "EnvoyFilterUsesRelativeOperation", Level.WARNING)
REPLACE_PATCH = _type(152, "EnvoyFilterUsesReplaceOperationIncorrectly", Level.ERROR)
ADD_PATCH = _type(153, "EnvoyFilterUsesAddOperationIncorrectly", Level.ERROR)
REMOVE_PATCH = _type(154, "EnvoyFilterUsesRemoveOperationIncorrectly", Level.ERROR)
RELATIVE_PATCH_OF_VERSION = _type(155, "EnvoyFilterUsesRelativeOperationWithProxyVersion", Level.WARNING)
TELEMETRY_PROVIDER = _type(157, "InvalidTelemetryProvider", Level.WARNING)
CONFLICTING_TELEMETRY = _type(159, "ConflictingTelemetryWorkloadSelectors", Level.ERROR)
SEVERAL_DEFAULT_TELEMETRY = _type(160, "MultipleTelemetriesWithoutWorkloadSelectors", Level.ERROR)
INVALID_CREDENTIAL = _type(161, "InvalidGatewayCredential", Level.ERROR)
GATEWAY_PORT = _type(162, "GatewayPortNotDefinedOnService", Level.WARNING)
SUBSET_WITHOUT_WORKLOADS = _type(173, "DestinationRuleSubsetNotSelectPods", Level.ERROR)
UNKNOWN_RULE_HOST = _type(174, "UnknownDestinationRuleHost", Level.WARNING)
