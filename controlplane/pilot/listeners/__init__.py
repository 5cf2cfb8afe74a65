"""What a proxy listens on: for its workload's requests, for what comes in, and at gateways."""

from __future__ import annotations

from controlplane.pilot.listeners.inbound import Clash, clashes, inbound_listeners
from controlplane.pilot.listeners.outbound import outbound_listeners

__all__ = ["Clash", "clashes", "inbound_listeners", "outbound_listeners"]
