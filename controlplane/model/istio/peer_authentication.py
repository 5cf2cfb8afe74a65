"""PeerAuthentication: whether workloads take plain text, mutual TLS, or both (Istio reference: security/peer_authentication)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import Field

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.selection import MatchLabels
from controlplane.model.resource import Model
from controlplane.model.values import Str, is_port, shown


class MutualTLS(Model):
    """The mode; UNSET means that of the next wider policy, and PERMISSIVE if there is none."""

    mode: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] = "UNSET"


class PeerAuthentication(Model):
    """The mode of the selected workloads, and of single ports of them (`portLevelMtls`, by the workload's port number)."""

    selector: MatchLabels | None = None
    mtls: MutualTLS | None = None
    port_level_mtls: Mapping[Str, MutualTLS] = Field(default_factory=dict)

    def problems(self) -> Iterable[Cause]:
        if self.port_level_mtls and (self.selector is None or not self.selector.match_labels):
            yield Cause(
                "selector",
                "is required where portLevelMtls is given: ports are of workloads, select them",
                Reason.REQUIRED,
            )
        for port in self.port_level_mtls:
            if not is_port(port):
                yield Cause(f"portLevelMtls[{port}]", f"{shown(port)} is not a port: write a number from 1 to 65535")
