from sidecar.config.core_types import TokenBucket as TokenBucketConfig
from sidecar.core.token_bucket import TokenBucket, make_token_bucket


def test_a_full_bucket_gives_its_limit_and_no_more():
    bucket = TokenBucket(3, 1.0, 100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_tokens_come_back_continuously():
    bucket = make_token_bucket(TokenBucketConfig(max_tokens=4, tokens_per_fill=2, fill_interval=1.0), 0.0)
    assert bucket.take(0.0, 4.0)
    assert not bucket.take(0.25)
    assert bucket.take(0.5)
    assert not bucket.take(0.5)


def test_it_never_holds_more_than_its_limit():
    bucket = TokenBucket(2, 10.0, 0.0)
    assert bucket.available(1000.0) == 2.0
    assert [bucket.take(1000.0) for _ in range(3)] == [True, True, False]


def test_several_tokens_are_taken_together_or_not_at_all():
    bucket = TokenBucket(5, 1.0, 0.0)
    assert bucket.take(0.0, 3.0)
    assert not bucket.take(0.0, 3.0)
    assert bucket.available(0.0) == 2.0


def test_a_clock_that_steps_back_takes_nothing_away():
    bucket = TokenBucket(2, 1.0, 10.0)
    assert bucket.take(10.0)
    assert bucket.take(9.0)
    assert not bucket.take(9.0)
    assert bucket.take(11.0)


def test_it_knows_how_long_a_token_takes():
    bucket = TokenBucket(4, 2.0, 0.0)
    assert bucket.seconds_until(4, 0.0) == 0.0
    assert bucket.take(0.0, 4.0)
    assert bucket.seconds_until(1, 0.0) == 0.5
    assert bucket.seconds_until(4, 1.0) == 1.0
