"""What a workload is served now, and who is being served: streams hear of each change, and say what they have taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from controlplane.nodeagent.svid import Svid
from controlplane.nodeagent.trust_bundle import TrustBundle


@dataclass(frozen=True, slots=True)
class Material:
    """The workload's certificate, None with the reason while it has none that is good, and the trust bundle."""

    svid: Svid | None
    bundle: TrustBundle
    reason: str = ""


class Subscriber(Protocol):
    """A stream that has been told the trust bundle and says whether it has taken it."""

    def has_taken(self, bundle: TrustBundle) -> bool:
        """Whether what it goes by is this bundle."""
        ...


class Current:
    """One workload's material. ``listeners`` are called after each change of it, and ``acknowledged`` when somebody has taken
    something.
    """

    def __init__(self, material: Material) -> None:
        self.material = material
        self.listeners: set[Callable[[], None]] = set()
        self.subscribers: set[Subscriber] = set()
        self.acknowledged: Callable[[], None] = lambda: None

    def replace(self, material: Material) -> None:
        """Serve this from now on."""
        if material == self.material:
            return
        self.material = material
        for listener in list(self.listeners):
            listener()

    def is_taken(self, bundle: TrustBundle) -> bool:
        """Whether everybody who follows the trust bundle goes by this one."""
        return self.material.bundle is bundle and all(one.has_taken(bundle) for one in self.subscribers)
