"""What is said to one proxy, in which order: transcripts, without a network."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest

from controlplane.model.encoded import Encoded
from controlplane.xds.conversation import PATIENCE, Conversation
from controlplane.xds.type_urls import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SHORT

NAMES = {short: type_url for type_url, short in SHORT.items()}


class Talk:
    """A conversation with a proxy that answers by hand. ``mesh`` is what there is: name to version, by type."""

    def __init__(self, *, incremental: bool = False) -> None:
        self.mesh: dict[str, dict[str, str]] = {CLUSTER: {}, ENDPOINTS: {}, LISTENER: {}, ROUTES: {}}
        self.verdicts: list[tuple[str, dict[str, str]]] = []
        self.conversation = Conversation(self, incremental=incremental)
        self.incremental = incremental
        self.now = 100.0

    def resources(self, type_url: str, names: Collection[str] | None) -> Mapping[str, Encoded]:
        return {
            name: Encoded(name, version, b"")
            for name, version in self.mesh.get(type_url, {}).items()
            if names is None or name in names
        }

    def judged(self, type_url: str, errors: Mapping[str, str]) -> None:
        self.verdicts.append((SHORT[type_url], dict(errors)))

    def there_is(self, short: str, **names: str | None) -> None:
        """These are in the mesh now, at these versions; None for those that are gone."""
        kept = self.mesh[NAMES[short]]
        for name, version in names.items():
            if version is None:
                del kept[name]
            else:
                kept[name] = version
        watch = self.conversation.watches.get(NAMES[short])
        if watch is not None:
            watch.changed(None if watch.wildcard else names)

    def ask(
        self, short: str, *names: str, without: Collection[str] = (), initial: Mapping[str, str] | None = None
    ) -> None:
        """The proxy asks: in the state of the world for all names that it wants, in delta for more and for fewer."""
        watch = self.conversation.watches.get(NAMES[short])
        if self.incremental:
            self.conversation.on_delta_request(
                DeltaDiscoveryRequest(
                    type_url=NAMES[short],
                    resource_names_subscribe=names,
                    resource_names_unsubscribe=without,
                    initial_resource_versions=initial,
                )
            )
        else:
            self.conversation.on_request(
                DiscoveryRequest(
                    type_url=NAMES[short], resource_names=names, response_nonce=watch.nonce if watch is not None else ""
                )
            )

    def answer(self, short: str, error: str = "", nonce: str | None = None) -> None:
        """The proxy acknowledges the last response of a type, or refuses it."""
        watch = self.conversation.watches[NAMES[short]]
        message = DeltaDiscoveryRequest if self.incremental else DiscoveryRequest
        request = message(type_url=NAMES[short], response_nonce=watch.nonce if nonce is None else nonce)
        if not self.incremental:
            request.resource_names.extend(watch.names - {"*"})
        if error:
            request.error_detail.message = error
        (self.conversation.on_delta_request if self.incremental else self.conversation.on_request)(request)

    def hear(self) -> list[str]:
        """All that is said now: `CDS a b -c`."""
        heard = []
        while True:
            say, _ = self.conversation.next(self.now)
            if say is None:
                return heard
            say.watch.on_sent(say.update, say.nonce, "v", self.now)
            words = [SHORT[say.watch.type_url], *say.update.resources]
            heard.append(" ".join([*words, *(f"-{name}" for name in say.update.removed)]))

    def begin(self) -> None:
        """A proxy that has a cluster, its endpoints, a listener and its routes."""
        for short, name in (("CDS", "a"), ("EDS", "a"), ("LDS", "l"), ("RDS", "r")):
            self.there_is(short, **{name: "1"})
            self.ask(short, *(() if short in ("CDS", "LDS") else (name,)))
            assert self.hear() == [f"{short} {name}"]
            self.answer(short)
        assert self.hear() == []


@pytest.fixture(params=[False, True], ids=["whole", "delta"])
def talk(request: pytest.FixtureRequest) -> Talk:
    return Talk(incremental=request.param)


def test_an_empty_mesh_is_an_answer(talk: Talk) -> None:
    talk.ask("CDS")
    assert talk.hear() == ["CDS"]
    talk.ask("EDS", "a")
    assert talk.hear() == (["EDS -a"] if talk.incremental else [])


def test_what_is_known_is_not_said_again(talk: Talk) -> None:
    talk.begin()
    for short, name in (("CDS", "a"), ("EDS", "a"), ("LDS", "l"), ("RDS", "r")):
        talk.there_is(short, **{name: "1"})
    assert talk.hear() == []


def test_clusters_before_endpoints_before_listeners_before_routes(talk: Talk) -> None:
    talk.begin()
    talk.there_is("RDS", r="2")
    talk.there_is("LDS", l="2")
    talk.there_is("EDS", a="2")
    talk.there_is("CDS", a="2")
    assert talk.hear() == ["CDS a", "EDS a"]
    talk.answer("EDS")
    assert talk.hear() == []  # Envoy acknowledges the clusters when they are warm
    talk.answer("CDS")
    assert talk.hear() == ["LDS l", "RDS r"]


def test_who_does_not_acknowledge_is_not_waited_for_for_ever(talk: Talk) -> None:
    talk.begin()
    talk.there_is("CDS", a="2")
    talk.there_is("RDS", r="2")
    assert talk.hear() == ["CDS a", "EDS a"]
    say, wake = talk.conversation.next(talk.now)
    assert say is None and wake == talk.now + PATIENCE
    talk.now += PATIENCE
    assert talk.hear() == ["RDS r"]


def test_what_changes_while_the_proxy_is_busy_is_said_once(talk: Talk) -> None:
    talk.begin()
    talk.there_is("EDS", a="2")
    assert talk.hear() == ["EDS a"]
    for version in "345":
        talk.there_is("EDS", a=version)
    assert talk.hear() == []
    talk.answer("EDS")
    assert talk.hear() == ["EDS a"]
    talk.answer("EDS")
    assert talk.hear() == []


def test_a_changed_cluster_is_followed_by_its_endpoints_unasked(talk: Talk) -> None:
    talk.begin()
    talk.there_is("CDS", a="2")
    assert talk.hear() == ["CDS a", "EDS a"]


def test_clusters_go_last(talk: Talk) -> None:
    talk.begin()
    talk.there_is("CDS", a=None, b="1")
    talk.there_is("EDS", a=None, b="1")
    talk.there_is("RDS", r="2")
    first = talk.hear()
    assert first == (["CDS b", "EDS -a"] if talk.incremental else ["CDS b a"])
    talk.ask("EDS", "b", *(() if talk.incremental else ("a",)))
    if talk.incremental:
        talk.answer("EDS")
    assert talk.hear() == ["EDS b"]
    talk.answer("EDS")
    talk.answer("CDS")
    assert talk.hear() == ["RDS r"]
    talk.answer("RDS")
    assert talk.hear() == ["CDS -a" if talk.incremental else "CDS b -a"]


def test_a_cluster_stays_while_the_routes_without_it_are_refused(talk: Talk) -> None:
    talk.begin()
    talk.there_is("CDS", a=None)
    talk.there_is("RDS", r="2")
    assert talk.hear() == ["RDS r"]
    talk.answer("RDS", error="no such thing")
    assert talk.hear() == []
    talk.there_is("RDS", r="3")
    assert talk.hear() == ["RDS r"]
    talk.answer("RDS")
    assert talk.hear() == ["CDS -a"]


def test_a_refusal_is_told_with_what_was_sent(talk: Talk) -> None:
    talk.begin()
    talk.there_is("RDS", r="2")
    talk.hear()
    talk.answer("RDS", error="bad route")
    assert talk.verdicts == [("RDS", {"r": "bad route"})]
    watch = talk.conversation.watches[ROUTES]
    assert watch.status == "NACKED"
    assert talk.hear() == []  # the same again would be refused again
    talk.there_is("RDS", r="3")
    talk.hear()
    talk.answer("RDS")
    assert watch.status == "SYNCED"
    assert talk.verdicts[1:] == [("RDS", {})]


def test_a_refusal_is_about_what_was_new_or_what_it_names(talk: Talk) -> None:
    talk.begin()
    talk.there_is("CDS", b="1", c="1")
    talk.hear()
    talk.answer("CDS", error="cannot take it")
    talk.there_is("CDS", b="2", d="1")
    talk.hear()
    talk.answer("CDS", error="Error adding/updating cluster(s) d: no such type")
    first = {"b": "cannot take it", "c": "cannot take it"}
    assert talk.verdicts == [
        ("CDS", first),
        ("CDS", {**first, "d": "Error adding/updating cluster(s) d: no such type"}),
    ]


def test_a_refusal_is_not_forgotten_at_the_next_answer(talk: Talk) -> None:
    """What is about another resource says nothing of it, and the cluster that the old route uses stays."""
    talk.begin()
    talk.there_is("RDS", s="1")
    talk.ask("RDS", "s", *(() if talk.incremental else ("r",)))
    talk.hear()
    talk.answer("RDS")
    talk.there_is("CDS", a=None)
    talk.there_is("RDS", r="2")
    assert talk.hear() == ["RDS r"]
    talk.answer("RDS", error="no such thing")
    talk.there_is("RDS", s="2")
    assert talk.hear() == ["RDS s"]
    talk.answer("RDS")
    assert talk.hear() == []
    assert talk.conversation.watches[ROUTES].status == "NACKED"
    talk.there_is("RDS", r="3")
    assert talk.hear() == ["RDS r"]
    talk.answer("RDS")
    assert talk.hear() == ["CDS -a"]


def test_other_names(talk: Talk) -> None:
    talk.begin()
    talk.there_is("EDS", a="1", b="1", c="1")
    assert talk.hear() == []
    talk.ask("EDS", "a", "b")
    assert talk.hear() == (["EDS a b"] if talk.incremental else ["EDS b"])
    talk.answer("EDS")
    talk.ask("EDS", *(("c",) if talk.incremental else ("b", "c")), without=["a"])
    assert talk.hear() == ["EDS c"]
    talk.answer("EDS")
    talk.there_is("EDS", a="2")
    assert talk.hear() == []


def test_a_stale_nonce_says_nothing() -> None:
    talk = Talk()
    talk.begin()
    stale = talk.conversation.watches[ENDPOINTS].nonce
    talk.there_is("EDS", a="2")
    talk.hear()
    talk.answer("EDS", nonce=stale)
    assert not talk.conversation.watches[ENDPOINTS].settled
    talk.answer("EDS")
    assert talk.conversation.watches[ENDPOINTS].settled


def test_versions_from_an_earlier_stream() -> None:
    talk = Talk(incremental=True)
    talk.there_is("CDS", a="1", b="2", d="1")
    talk.ask("CDS", initial={"a": "1", "b": "1", "c": "1"})
    assert talk.hear() == ["CDS b d -c"]
    talk.there_is("EDS", a="1", b="2")
    talk.ask("EDS", "a", "b", initial={"a": "1", "b": "1"})
    assert talk.hear() == ["EDS b"]
    talk.answer("CDS")
    talk.answer("EDS")
    talk.there_is("RDS", r="1")
    talk.ask("RDS", "r", initial={"r": "1"})
    assert talk.hear() == []
    assert talk.conversation.watches[ROUTES].status == "SYNCED"


def test_wildcard_by_its_name(talk: Talk) -> None:
    talk.there_is("CDS", a="1", b="1")
    talk.ask("CDS", "*")
    assert talk.hear() == ["CDS a b"]


def test_a_client_without_wildcard() -> None:
    """gRPC asks for listeners and clusters by name, and hears at once of those that there are not."""
    talk = Talk()
    talk.ask("LDS", "shop:80")
    assert talk.hear() == ["LDS"]
    talk.answer("LDS")
    talk.there_is("LDS", **{"shop:80": "1"})
    assert talk.hear() == ["LDS shop:80"]
    talk.answer("LDS")
    talk.there_is("CDS", a="1", b="1", c="1")
    talk.ask("CDS", "a", "b")
    assert talk.hear() == ["CDS a b"]
    talk.answer("CDS")
    talk.there_is("CDS", b="2")
    assert talk.hear() == ["CDS a b"]  # of clusters the state of the world is told whole


def test_a_subscription_by_the_star_remembers_what_was_sent() -> None:
    """Its acknowledgements name the star again, and that is no resource of that name."""
    talk = Talk()
    talk.there_is("CDS", a="1", b="1")
    talk.ask("CDS", "*")
    assert talk.hear() == ["CDS a b"]

    def answer(short: str) -> None:
        watch = talk.conversation.watches[NAMES[short]]
        names = ["*"] if watch.wildcard else watch.names
        talk.conversation.on_request(
            DiscoveryRequest(type_url=NAMES[short], response_nonce=watch.nonce, resource_names=names)
        )

    answer("CDS")
    talk.there_is("RDS", r="1")
    talk.ask("RDS", "r")
    assert talk.hear() == ["RDS r"]
    answer("RDS")
    talk.there_is("CDS", b=None)
    talk.there_is("RDS", r="2")
    assert talk.hear() == ["RDS r"]
    answer("RDS")
    assert talk.hear() == ["CDS a -b"]
    answer("CDS")
    talk.there_is("CDS", a=None)
    assert talk.hear() == ["CDS -a"]


def test_who_comes_back_gets_the_endpoints_of_clusters_that_are_different() -> None:
    """Even if they are what they were, and the proxy asks for them when it has the clusters already."""
    talk = Talk(incremental=True)
    talk.there_is("CDS", a="2", b="1")
    talk.ask("CDS", initial={"a": "1", "b": "1"})
    assert talk.hear() == ["CDS a"]
    talk.there_is("EDS", a="1", b="1")
    talk.ask("EDS", "a", "b", initial={"a": "1", "b": "1"})
    assert talk.hear() == ["EDS a"]
