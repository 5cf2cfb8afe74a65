import asyncio
import logging
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from examples.filters.api_key import ApiKeyFilter
from sidecar.config.filters.user_filter import UserFilter
from sidecar.filters import PAUSE, HttpFilter
from sidecar.filters.registry import make_filter, make_route_filter
from sidecar.filters.user import find_user_filter
from sidecar.http.filter_chain import FilterChain
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get, make_context


class Nothing(HttpFilter):
    def __init__(self, config):
        self.config = config


class PausesRequests(Nothing):
    def on_request(self, stream, end):
        return PAUSE


class PausesResponses(Nothing):
    def on_response(self, stream, end):
        return PAUSE


class ChangesData(Nothing):
    def on_request_data(self, stream, data, end):
        return data.upper()

    def on_response_data(self, stream, data, end):
        return data.upper()

    def on_complete(self, stream):
        stream.data["completed by"] = self.name


class Slotted(HttpFilter):
    __slots__ = ()

    def __init__(self, config):
        pass


def make(kind, config=None, worker=None):
    context = make_context(worker, entry_point_filters=lambda name: kind)
    return make_filter(UserFilter("mine", config or {}), "my filter", context)


def test_entry_points_are_found_by_name(monkeypatch):
    entry = EntryPoint("api_key", "examples.filters.api_key:ApiKeyFilter", "mizzen.filters")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: EntryPoints([entry]))
    assert find_user_filter("api_key") is ApiKeyFilter
    with pytest.raises(ValueError, match=r"no entry point 'other' in the group mizzen.filters \(installed: api_key\)"):
        find_user_filter("other")


def test_an_entry_point_that_cannot_be_imported_is_named(monkeypatch):
    entry = EntryPoint("broken", "examples.filters.nowhere:Filter", "mizzen.filters")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: EntryPoints([entry]))
    with pytest.raises(ValueError, match=r"'broken' \(examples.filters.nowhere:Filter\) cannot be imported"):
        find_user_filter("broken")


def test_the_constructor_gets_the_configuration_without_what_is_the_proxys():
    made = make(Nothing, {"a": {"b": [1, 2]}, "pause_timeout": 1})
    assert made.inner.config == {"a": {"b": [1, 2]}}
    assert made.inner.name == made.name == "my filter"


def test_only_the_hooks_that_it_has_are_called():
    chain = FilterChain([make(Nothing)])
    assert not chain.request
    assert chain.plain_request
    assert chain.plain_response
    assert len(FilterChain([make(PausesRequests)]).request) == 1
    assert make(Slotted).name == "my filter"


def test_a_constructor_that_raises_refuses_the_configuration():
    with pytest.raises(ValueError, match=r"the filter 'mine' refuses its configuration: KeyError\('keys'\)"):
        make(ApiKeyFilter)


def test_only_filters_are_filters():
    with pytest.raises(ValueError, match=r"is no sidecar.filters.HttpFilter but a dict"):
        make(dict)


@pytest.mark.parametrize("value", [0, -1, "soon", True, None, "inf"])
def test_a_deadline_is_a_time(value):
    with pytest.raises(ValueError, match="pause_timeout"):
        make(Nothing, {"pause_timeout": value})


@pytest.mark.parametrize(
    ("config", "seconds"), [({}, 5.0), ({"pause_timeout": "2.5s"}, 2.5), ({"pause_timeout": 1}, 1)]
)
def test_a_request_that_is_paused_too_long_gets_504(config, seconds, caplog):
    worker = FakeWorker()
    stream = FakeStream(worker, [make(PausesRequests, config, worker)]).ask()
    worker.advance(seconds - 0.01)
    assert stream.replied is None
    with caplog.at_level(logging.WARNING):
        worker.advance(0.02)
    assert stream.replied == (504, b"", "filter_timeout")
    assert "my filter" in caplog.text


def test_a_request_that_was_resumed_in_time_is_left_alone():
    worker = FakeWorker()
    stream = FakeStream(worker, [make(PausesRequests, {}, worker)]).ask()
    stream.resume_request()
    worker.advance(10.0)
    assert stream.forwarded
    assert stream.replied is None


def test_a_pause_of_another_filter_is_not_this_ones():
    worker = FakeWorker()
    first, second = make(PausesRequests, {}, worker), make(PausesRequests, {"pause_timeout": 60}, worker)
    stream = FakeStream(worker, [first, second]).ask()
    worker.advance(4.0)
    stream.resume_request()
    worker.advance(4.0)
    assert stream.replied is None
    worker.advance(60.0)
    assert stream.replied[0] == 504


def test_a_response_that_is_paused_too_long_becomes_500_and_does_not_pause_again():
    worker = FakeWorker()
    stream = FakeStream(worker, [make(PausesResponses, {}, worker)]).ask().answer(200, body=b"late")
    assert not stream.over
    worker.advance(5.0)
    assert stream.replied == (500, b"", "filter_timeout")
    assert stream.over


@pytest.mark.parametrize("kind", [PausesRequests, PausesResponses])
def test_the_end_of_a_stream_leaves_no_timer_behind(kind):
    worker = FakeWorker()
    stream = FakeStream(worker, [make(kind, {}, worker)]).ask()
    if stream.forwarded:
        stream.answer(200)
    assert len(worker.timers) == 1
    stream.complete()
    assert not worker.timers


def test_an_answer_needs_no_deadline():
    worker = FakeWorker()
    made = make(ApiKeyFilter, KEYS, worker)
    assert FakeStream(worker, [made]).ask().over
    assert not worker.timers


def test_bodies_pass_through_it():
    made = make(ChangesData)
    stream = FakeStream(FakeWorker(), [made]).ask(b"request").answer(200, body=b"response")
    assert stream.sent == b"REQUEST"
    assert stream.got == b"RESPONSE"
    assert stream.data["completed by"] == "my filter"


def test_a_route_has_an_object_of_its_own():
    context = make_context(entry_point_filters=lambda name: Nothing)
    base_config = UserFilter("mine", {"a": 1})
    base = make_filter(base_config, "my filter", context)
    own = make_route_filter(base, base_config, UserFilter("mine", {"a": 2}), context)
    assert own.inner.config == {"a": 2}
    assert own.name == "my filter"


KEYS = {"keys": {"s3cret": "alice"}}


def ask_with_key(*fields):
    async def ask():
        worker = FakeWorker()
        made = make(ApiKeyFilter, KEYS, worker)
        stream = FakeStream(worker, [made], get(b"/", *fields)).ask()
        await asyncio.gather(*made.inner.tasks)
        return stream

    return asyncio.run(ask())


def test_the_example_lets_a_known_key_pass():
    stream = ask_with_key((b"x-api-key", b"s3cret"), (b"x-consumer", b"root"))
    assert stream.forwarded
    assert stream.request.fields == [(b"x-consumer", b"alice")]
    assert stream.answer(200).response.get(b"cache-control") == b"private"


@pytest.mark.parametrize(
    ("fields", "status", "details"),
    [([], 401, "api_key_missing"), ([(b"x-api-key", b"guess")], 403, "api_key_unknown")],
)
def test_the_example_answers_without_one(fields, status, details):
    stream = ask_with_key(*fields)
    assert stream.replied[::2] == (status, details)
    assert not stream.forwarded
