"""The tables themselves: complete, and without a way back from the end."""

from __future__ import annotations

from sidecar.codec import http2_states as states

EVENTS = states.SEND_RST_STREAM + 1
ENDS = (states.CLOSED, states.RESET_BY_US, states.RESET_BY_PEER)


def test_every_state_says_what_every_event_leads_to() -> None:
    assert len(states.STREAM) == states.RESET_BY_PEER + 1
    assert all(len(row) == EVENTS for row in states.STREAM)
    assert len(states.CONNECTION) == states.DEAD + 1
    assert all(len(row) == 11 for row in states.CONNECTION)


def test_no_event_leads_out_of_an_end_and_only_headers_out_of_idle() -> None:
    for end in ENDS:
        assert all(after < 0 for after in states.STREAM[end])
    opening = {event for event, after in enumerate(states.STREAM[states.IDLE]) if after >= 0}
    assert opening == {states.RECV_HEADERS, states.SEND_HEADERS}


def test_a_stream_closes_once_both_sides_have_ended_it_in_either_order() -> None:
    for first, second in (
        (states.RECV_END_STREAM, states.SEND_END_STREAM),
        (states.SEND_END_STREAM, states.RECV_END_STREAM),
    ):
        half = states.STREAM[states.OPEN][first]
        assert half not in ENDS
        assert states.STREAM[half][second] == states.CLOSED
        assert states.STREAM[half][first] < 0
    for state in (states.OPEN, states.HALF_CLOSED_LOCAL, states.HALF_CLOSED_REMOTE):
        assert states.STREAM[state][states.RECV_RST_STREAM] == states.RESET_BY_PEER
        assert states.STREAM[state][states.SEND_RST_STREAM] == states.RESET_BY_US


def test_what_has_ended_sends_nothing() -> None:
    for state in (states.HALF_CLOSED_LOCAL, *ENDS):
        assert states.STREAM[state][states.SEND_DATA] < 0
        assert states.STREAM[state][states.SEND_HEADERS] < 0
