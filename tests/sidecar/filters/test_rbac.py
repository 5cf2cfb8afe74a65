import pytest

from sidecar.config.filters.rbac import HttpRbac
from sidecar.config.matcher import HeaderMatcher, StringMatcher
from sidecar.config.rbac import AnyRule, Policy, Rbac
from sidecar.filters.rbac import denied_details
from sidecar.filters.registry import make_filter, make_route_filter
from tests.sidecar.filters.streams import FakeStream, FakeWorker, get, make_context

ANY = AnyRule()
ALICE = HeaderMatcher(b"x-user", StringMatcher("exact", b"alice"))


def rules(action, name="the alices"):
    return Rbac(action, (Policy(name, (ANY,), (ALICE,)),))


class Setting:
    def __init__(self, config):
        self.worker = FakeWorker()
        self.context = make_context(self.worker)
        self.config = config
        self.filter = make_filter(config, "rbac", self.context)
        self.stats = self.context.stats("rbac", config.rules_stat_prefix)
        self.shadow_stats = self.context.stats("rbac_shadow", config.shadow_rules_stat_prefix)

    def ask(self, user=b"alice", filters=None):
        return FakeStream(self.worker, filters or [self.filter], get(b"/", (b"x-user", user))).ask()


@pytest.mark.parametrize(
    ("action", "user", "passes", "policy"),
    [
        ("ALLOW", b"alice", True, "the alices"),
        ("ALLOW", b"bob", False, None),
        ("DENY", b"alice", False, "the alices"),
        ("DENY", b"bob", True, None),
        ("LOG", b"alice", True, "the alices"),
        ("LOG", b"bob", True, None),
    ],
)
def test_actions(action, user, passes, policy):
    setting = Setting(HttpRbac(rules(action)))
    stream = setting.ask(user)
    assert stream.forwarded is passes
    assert (setting.stats.allowed, setting.stats.denied) == (int(passes), int(not passes))
    said = {"enforced_engine_result": "allowed" if passes else "denied"}
    if policy:
        said["enforced_effective_policy_id"] = policy
    assert stream.dynamic_metadata["envoy.filters.http.rbac"] == said
    if not passes:
        named = "the_alices" if policy else "none"
        assert stream.replied == (403, b"RBAC: access denied", f"rbac_access_denied_matched_policy[{named}]")


def test_details_have_no_white_space():
    assert denied_details("a  b\tc") == "rbac_access_denied_matched_policy[a__b_c]"


@pytest.mark.parametrize(("user", "hint"), [(b"alice", True), (b"bob", False)])
def test_log_leaves_a_hint_for_access_logs(user, hint):
    stream = Setting(HttpRbac(rules("LOG"))).ask(user)
    assert stream.dynamic_metadata["envoy.common"] == {"access_log_hint": hint}


def test_without_rules_everything_passes_and_nothing_is_counted():
    setting = Setting(HttpRbac())
    assert setting.ask().forwarded
    assert setting.stats.allowed == 0
    assert setting.filter.explain(setting.ask()) is None


def test_rules_without_policies_allow_nothing():
    assert Setting(HttpRbac(Rbac("ALLOW", ()))).ask().replied[0] == 403


def test_shadow_rules_only_watch():
    setting = Setting(HttpRbac(rules("ALLOW"), rules("DENY", "watched"), "main_", "shadow_"))
    stream = setting.ask()
    assert stream.forwarded
    assert (setting.shadow_stats.shadow_allowed, setting.shadow_stats.shadow_denied) == (0, 1)
    assert stream.dynamic_metadata["envoy.filters.http.rbac"] == {
        "shadow_shadow_effective_policy_id": "watched",
        "shadow_shadow_engine_result": "denied",
        "main_enforced_effective_policy_id": "the alices",
        "main_enforced_engine_result": "allowed",
    }
    other = setting.ask(b"bob")
    assert other.dynamic_metadata["envoy.filters.http.rbac"] == {
        "shadow_shadow_engine_result": "allowed",
        "main_enforced_engine_result": "denied",
    }


def test_what_one_request_adds_to_its_metadata_stays_with_it():
    setting = Setting(HttpRbac(rules("ALLOW")))
    second = make_filter(HttpRbac(rules("ALLOW"), rules_stat_prefix="second_"), "second", setting.context)
    both = setting.ask(filters=[setting.filter, second])
    assert len(both.dynamic_metadata["envoy.filters.http.rbac"]) == 4
    assert len(setting.ask().dynamic_metadata["envoy.filters.http.rbac"]) == 2


def test_a_route_has_its_own_rules_and_counts_with_the_filter():
    setting = Setting(HttpRbac(rules("ALLOW"), rules_stat_prefix="main_"))
    own = make_route_filter(
        setting.filter, setting.config, HttpRbac(rules("DENY"), rules_stat_prefix="route_"), setting.context
    )
    stream = setting.ask(filters=[own])
    assert stream.replied[0] == 403
    assert setting.stats.denied == 1
    assert stream.dynamic_metadata["envoy.filters.http.rbac"]["route_enforced_engine_result"] == "denied"
    off = make_route_filter(setting.filter, setting.config, HttpRbac(), setting.context)
    assert setting.ask(b"bob", filters=[off]).forwarded


def test_it_explains_its_decisions():
    setting = Setting(HttpRbac(rules("ALLOW")))
    decision = setting.filter.explain(setting.ask(b"bob"))
    assert not decision.allowed
    assert decision.failed == {"the alices": ("principal header x-user exact 'alice' is not met: it is 'bob'",)}
