"""When something is done: triggers turn pressures into the scale of an action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sidecar.config.overload_manager import Trigger


def scale_of(trigger: Trigger, pressure: float) -> float:
    """From 0 (nothing is done) to 1 (all that can be), for the pressure of the trigger's monitor."""
    if pressure >= trigger.saturation:
        return 1.0
    if pressure <= trigger.scaling:
        return 0.0
    return (pressure - trigger.scaling) / (trigger.saturation - trigger.scaling)


def highest_scale(triggers: Sequence[Trigger], pressures: Mapping[str, float]) -> float:
    """Of several triggers the one counts that asks for most; a monitor that has not told anything yet asks for nothing."""
    return max((scale_of(each, pressures[each.name]) for each in triggers if each.name in pressures), default=0.0)
