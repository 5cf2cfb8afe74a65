"""The RBAC filter: requests that the rules do not let pass get 403; shadow rules only count and leave metadata.

Source: Envoy's ``extensions.filters.http.rbac.v3.RBAC`` and "Role Based Access Control (RBAC) Filter".
"""

from __future__ import annotations

from typing import Any, Protocol

from sidecar.config.filters.rbac import HttpRbac
from sidecar.config.rbac import Rbac
from sidecar.core.explanation import ENDS, PASSES, Step
from sidecar.core.http_filter import FilterStream
from sidecar.core.rbac import allows, compile_rbac
from sidecar.core.rbac_explanation import RbacDecision, explain_rbac
from sidecar.filters.context import FilterContext, NamedFilter, StatsFactory

METADATA = "envoy.filters.http.rbac"
LOG_METADATA = "envoy.common"


class RbacStats(Protocol):
    """What an enforcing engine counts."""

    allowed: int
    denied: int


class RuleStats:
    """What single policies count, below the prefixes of the filter of the chain; made when there is something."""

    __slots__ = ("_groups", "_prefixes", "_stats")

    def __init__(self, stats: StatsFactory, rules_stat_prefix: str, shadow_rules_stat_prefix: str) -> None:
        self._stats = stats
        self._prefixes = {"": rules_stat_prefix, "shadow_": shadow_rules_stat_prefix}
        self._groups: dict[tuple[str, str], Any] = {}

    def count(self, policy: str | None, kind: str, allowed: bool) -> None:
        """``kind`` is empty for an enforcing engine, and ``shadow_`` for a watching one."""
        if policy is None:
            return
        group = self._groups.get((kind, policy))
        if group is None:
            group = self._groups[kind, policy] = self._stats("rbac_policy", self._prefixes[kind], policy)
        group.counts[f"{kind}{'allowed' if allowed else 'denied'}"] += 1


class RbacShadowStats(Protocol):
    """What a watching engine counts."""

    shadow_allowed: int
    shadow_denied: int


class _Engine:
    """Rules compiled, with everything that is said of their outcomes prepared: per policy, and for None."""

    __slots__ = ("find", "outcomes")

    def __init__(self, rules: Rbac, key_prefix: str, kind: str) -> None:
        self.find = compile_rbac(rules)
        self.outcomes: dict[str | None, tuple[bool, dict[str, Any], str]] = {}
        for policy in (None, *(policy.name for policy in rules.policies)):
            allowed = allows(rules.action, policy)
            fields: dict[str, Any] = {}
            if policy:
                fields[f"{key_prefix}{kind}_effective_policy_id"] = policy
            fields[f"{key_prefix}{kind}_engine_result"] = "allowed" if allowed else "denied"
            self.outcomes[policy] = (allowed, fields, denied_details(policy))


def denied_details(policy: str | None) -> str:
    """The response code details of a denial by ``policy`` (None: no policy fitted); white space becomes ``_``."""
    name = "".join("_" if letter.isspace() else letter for letter in policy or "none")
    return f"rbac_access_denied_matched_policy[{name}]"


def _put(stream: FilterStream, namespace: str, fields: dict[str, Any]) -> None:
    """Merge ``fields`` into the stream's metadata without changing a dict that streams share."""
    metadata = stream.dynamic_metadata
    if metadata is None:
        stream.dynamic_metadata = {namespace: fields}
    elif namespace in metadata:
        metadata[namespace] = {**metadata[namespace], **fields}
    else:
        metadata[namespace] = fields


class RbacFilter(NamedFilter):
    """Enforced rules, shadow rules, or both. ``stats`` and ``shadow_stats`` are shared with the filter's routes."""

    __slots__ = ("_enforced", "_logs", "_shadow", "config", "rule_stats", "shadow_stats", "stats")

    def __init__(
        self, name: str, config: HttpRbac, stats: RbacStats, shadow_stats: RbacShadowStats, rule_stats: RuleStats
    ) -> None:
        NamedFilter.__init__(self, name)
        self.config = config
        self.stats = stats
        self.shadow_stats = shadow_stats
        self.rule_stats = rule_stats
        rules, shadow_rules = config.rules, config.shadow_rules
        self._enforced = None if rules is None else _Engine(rules, config.rules_stat_prefix, "enforced")
        self._shadow = (
            None if shadow_rules is None else _Engine(shadow_rules, config.shadow_rules_stat_prefix, "shadow")
        )
        self._logs = rules is not None and rules.action == "LOG"

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Let the request pass, or answer it with 403."""
        if self._shadow is not None:
            self._watch(stream, self._shadow)
        enforced = self._enforced
        if enforced is None:
            return None
        policy = enforced.find(stream)
        allowed, fields, details = enforced.outcomes[policy]
        if self._logs:
            _put(stream, LOG_METADATA, {"access_log_hint": policy is not None})
        if stream.dynamic_metadata is None:
            stream.dynamic_metadata = {METADATA: fields}
        else:
            _put(stream, METADATA, fields)
        if self.config.track_per_rule_stats:
            self.rule_stats.count(policy, "", allowed)
        if allowed:
            self.stats.allowed += 1
            return None
        self.stats.denied += 1
        return stream.reply(403, b"RBAC: access denied", details=details)

    def explain(self, stream: Any) -> RbacDecision | None:
        """Which policy lets this request pass or stops it, and what failed; None where nothing is enforced."""
        return None if self.config.rules is None else explain_rbac(self.config.rules, stream)

    def rehearse(self, stream: FilterStream) -> Step | None:
        """See ``HttpFilter``. Shadow rules say what they would have said."""
        title = f"http filter {self.name}"
        told = [] if self._shadow is None else [self._shadow]
        config = self.config
        details: list[str] = []
        if config.shadow_rules is not None:
            shadow = explain_rbac(config.shadow_rules, stream)
            details.append(f"shadow rules, which only watch: {shadow.summary}")
            _put(stream, METADATA, told[0].outcomes[shadow.policy][1])
        if config.rules is None or self._enforced is None:
            text = f"{title}: passes: there are no rules to enforce"
            return Step("http filter", self.name, PASSES, text, tuple(details))
        decision = explain_rbac(config.rules, stream)
        _, fields, reason = self._enforced.outcomes[decision.policy]
        _put(stream, METADATA, fields)
        details = [*decision.lines, *details]
        if decision.allowed:
            return Step("http filter", self.name, PASSES, f"{title}: passes: {decision.summary}", tuple(details))
        stream.reply(403, b"RBAC: access denied", details=reason)
        return Step("http filter", self.name, ENDS, f"{title}: denies: {decision.summary}", tuple(details))

    def _watch(self, stream: FilterStream, engine: _Engine) -> None:
        policy = engine.find(stream)
        allowed, fields, _ = engine.outcomes[policy]
        rules = self.config.shadow_rules
        if rules is not None and rules.action == "LOG":
            _put(stream, LOG_METADATA, {"access_log_hint": policy is not None})
        if allowed:
            self.shadow_stats.shadow_allowed += 1
        else:
            self.shadow_stats.shadow_denied += 1
        if self.config.track_per_rule_stats:
            self.rule_stats.count(policy, "shadow_", allowed)
        _put(stream, METADATA, fields)


class PlainRbacFilter(RbacFilter):
    """The usual case, cut short: rules that allow or deny, and no shadow rules."""

    __slots__ = ("_find", "_outcomes")

    def __init__(
        self, name: str, config: HttpRbac, stats: RbacStats, shadow_stats: RbacShadowStats, rule_stats: RuleStats
    ) -> None:
        RbacFilter.__init__(self, name, config, stats, shadow_stats, rule_stats)
        assert self._enforced is not None
        self._find = self._enforced.find
        self._outcomes = self._enforced.outcomes

    def on_request(self, stream: FilterStream, end: bool) -> bool | None:
        """Let the request pass, or answer it with 403."""
        allowed, fields, details = self._outcomes[self._find(stream)]
        if stream.dynamic_metadata is None:
            stream.dynamic_metadata = {METADATA: fields}
        else:
            _put(stream, METADATA, fields)
        if allowed:
            self.stats.allowed += 1
            return None
        self.stats.denied += 1
        return stream.reply(403, b"RBAC: access denied", details=details)


def _make(
    name: str, config: HttpRbac, stats: RbacStats, shadow_stats: RbacShadowStats, rule_stats: RuleStats
) -> RbacFilter:
    simple = config.shadow_rules is None and not config.track_per_rule_stats
    plain = simple and config.rules is not None and config.rules.action != "LOG"
    return (PlainRbacFilter if plain else RbacFilter)(name, config, stats, shadow_stats, rule_stats)


def make_rbac(config: HttpRbac, name: str, context: FilterContext) -> RbacFilter:
    """The chain's own instance."""
    return _make(
        name,
        config,
        context.stats("rbac", config.rules_stat_prefix),
        context.stats("rbac_shadow", config.shadow_rules_stat_prefix),
        RuleStats(context.stats, config.rules_stat_prefix, config.shadow_rules_stat_prefix),
    )


def make_route_rbac(base: RbacFilter, config: HttpRbac) -> RbacFilter:
    """A route's own rules, which count where the chain's instance does."""
    return _make(base.name, config, base.stats, base.shadow_stats, base.rule_stats)
