"""The table of phases: what leads where, what holds, and that the page shows it as it is."""

from __future__ import annotations

import re

import pytest

from sidecar.lifecycle.phases import MEANING, TRANSITIONS, Event, Life, Phase
from tests.running import REPOSITORY


def test_the_page_shows_the_table() -> None:
    page = (REPOSITORY / "docs" / "lifecycle.md").read_text()
    rows = {
        cells[0]: cells[1:]
        for row in re.findall(r"^\| (.*) \|$", page, re.MULTILINE)
        if len(cells := row.split(" | ")) == 6
    }
    answer = {True: "yes", False: "no"}
    for phase in Phase:
        meaning = MEANING[phase]
        ready = f"{meaning.state}, {200 if meaning.state == 'LIVE' else 503}" if phase is not Phase.ENDED else "nothing"
        leads = "; ".join(f"{after.name}: {event.value}" for event, after in TRANSITIONS[phase].items())
        assert rows[phase.name] == [
            str(phase.value), ready, answer[meaning.accepts], answer[meaning.asks_to_close], leads
        ]  # fmt: skip


def test_a_whole_life() -> None:
    seen: list[Phase] = []
    life = Life(lambda before, event, after: seen.append(after))
    way = (
        Event.BOUND,
        Event.INITIALIZED,
        Event.ASKED_TO_END,
        Event.ANNOUNCED_LONG_ENOUGH,
        Event.EMPTY,
        Event.STARTED_AGAIN,
    )
    assert all(life.on(event) for event in way)
    assert seen == [Phase.INITIALIZING, Phase.SERVING, Phase.ANNOUNCED, Phase.DRAINING, Phase.ENDED, Phase.STARTING]


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", Event)
def test_what_is_not_in_the_table_changes_nothing(phase: Phase, event: Event) -> None:
    seen: list[Phase] = []
    life = Life(lambda before, event, after: seen.append(after))
    life.phase = phase
    expected = Phase.ENDED if event is Event.STOPPED else TRANSITIONS[phase].get(event, phase)
    assert life.on(event) is (expected is not phase)
    assert life.phase is expected
    assert seen == ([] if expected is phase else [expected])
    assert life.state == MEANING[expected].state
