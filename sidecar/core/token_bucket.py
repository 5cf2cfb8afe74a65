"""A token bucket that is filled when it is asked: no timer, two numbers of state. For rate limits of all stages."""

from __future__ import annotations

from sidecar.config.core_types import TokenBucket as TokenBucketConfig


class TokenBucket:
    """At most ``limit`` tokens, ``rate`` new ones a second, continuously; full at first.

    Times are seconds of one monotonic clock, and may be as coarse as the caller's cached time is. Source: Envoy's local
    rate limit, which spreads ``tokens_per_fill`` evenly over ``fill_interval``.
    """

    __slots__ = ("filled", "limit", "rate", "tokens")

    def __init__(self, limit: int, rate: float, now: float) -> None:
        self.limit = float(limit)
        self.rate = rate
        self.tokens = self.limit
        self.filled = now

    def take(self, now: float, count: float = 1.0) -> bool:
        """Take ``count`` tokens, or none at all when there are fewer."""
        tokens = self.tokens
        elapsed = now - self.filled
        if elapsed > 0.0:
            self.filled = now
            tokens += elapsed * self.rate
            if tokens > self.limit:
                tokens = self.limit
        if tokens >= count:
            self.tokens = tokens - count
            return True
        self.tokens = tokens
        return False

    def available(self, now: float) -> float:
        """The tokens that there are at ``now``."""
        return min(self.limit, self.tokens + max(0.0, now - self.filled) * self.rate)

    def seconds_until(self, count: float, now: float) -> float:
        """How long it takes until there are ``count`` tokens; 0.0 if there are."""
        return max(0.0, count - self.available(now)) / self.rate

    def __repr__(self) -> str:
        return f"<TokenBucket {self.tokens:.1f} of {self.limit:.0f}, {self.rate:g}/s>"


def make_token_bucket(config: TokenBucketConfig, now: float) -> TokenBucket:
    """The bucket that a configuration describes, full at ``now``."""
    return TokenBucket(config.max_tokens, config.tokens_per_fill / config.fill_interval, now)
