"""How the workload beside this sidecar is, told to the control plane on the stream of ADS, in the way of Istio's agent.

A cluster whose metadata have `mizzen.workload: {health: true}` is not for traffic: its active health checks are the workload's
readiness probe. Source: Istio, *Virtual machine health checks*; `istio.v1.HealthInformation` is a request without names, with
an error if the workload is ill.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

HEALTH_URL: Final = "type.googleapis.com/istio.v1.HealthInformation"
METADATA: Final = "mizzen.workload"


def is_probe(metadata: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a cluster of these metadata is the workload's probe."""
    return metadata.get(METADATA, {}).get("health") is True


class WorkloadHealth:
    """Calls ``tell`` with the type and, if the workload is ill, what is wrong, whenever that changes."""

    def __init__(self, tell: Callable[[str, str | None], None]) -> None:
        self._tell = tell
        self._told: bool | None = None

    def checked(self, well: bool, address: str) -> None:
        """A probe of the application at this address is over, and this is what it is taken for now."""
        if well is not self._told:
            self._told = well
            self._tell(HEALTH_URL, None if well else f"the readiness probe of {address} fails")
