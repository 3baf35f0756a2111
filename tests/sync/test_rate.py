"""In the long run no more than the rate; what is fresh never waits."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from sync.rate import Bucket


@given(st.integers(100, 10**6), st.lists(st.integers(1, 10**6), min_size=1, max_size=60))
def test_bulk_keeps_to_the_rate(rate: int, frames: list[int]) -> None:
    bucket, now = Bucket(rate, 0.0), 0.0
    for size in frames:
        now += bucket.wait_s(now)
        assert bucket.wait_s(now) <= 1e-6
        bucket.spend(size, now)
    assert sum(frames[:-1]) <= rate * (now + 1) + 1, "one second's worth, and one frame, may go out ahead"


def test_what_is_fresh_is_paid_for_by_the_bulk_after_it() -> None:
    bucket = Bucket(1_000, 0.0)
    bucket.spend(1_000, 0.0)
    assert bucket.wait_s(0.0) == 0
    bucket.spend(500, 0.0)
    assert bucket.wait_s(0.0) == 0.5
    bucket.spend(500, 0.0)
    assert bucket.wait_s(0.0) == 1.0
    assert bucket.wait_s(0.75) == 0.25
    assert bucket.wait_s(1.0) == 0


def test_without_a_rate_nothing_waits() -> None:
    bucket, rng = Bucket(0, 0.0), Random(1)
    for second in range(100):
        bucket.spend(rng.randint(1, 10**9), float(second))
        assert bucket.wait_s(float(second)) == 0


def test_quiet_times_save_up_one_second_and_no_more() -> None:
    bucket = Bucket(1_000, 0.0)
    bucket.spend(3_000, 1_000.0)
    assert bucket.wait_s(1_000.0) == 2.0
