from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from bus.messaging.resilience.sliding_window import BUCKETS, SlidingWindow

Call: TypeAlias = tuple[float, bool, bool]
"""Seconds since the last call, whether the call failed, and whether it was slow."""

CALLS = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 0.6), st.floats(0, 40)), st.booleans(), st.booleans()
    ),
    max_size=60,
)


def counts(results: list[Call]) -> tuple[int, int, int]:
    return len(results), sum(call[1] for call in results), sum(call[2] for call in results)


@given(CALLS, st.sampled_from([0.5, 10.0, 60.0]), st.floats(0, 1e6))
def test_a_window_counts_what_a_list_of_all_calls_counts(
    calls: list[Call], seconds: float, begin: float
) -> None:
    window, now, model = SlidingWindow(seconds, begin), begin, list[Call]()
    for pause, failed, slow in calls:
        now += pause
        window.add(now, failed=failed, slow=slow)
        model.append((now, failed, slow))
        later = window.counts(now + seconds / 3)
        window.advance(now)
        assert window.counts(now) == (window.calls, window.failures, window.slow)
        limit = (now + seconds / 3) // (seconds / BUCKETS) - BUCKETS + 1
        assert later == counts([call for call in model if call[0] // (seconds / BUCKETS) >= limit])
        width = seconds / BUCKETS
        first = now // width - BUCKETS + 1
        assert (window.calls, window.failures, window.slow) == counts(
            [call for call in model if call[0] // width >= first]
        )
        # So all calls of the last 95 percent are counted, and no call from before the window.
        assert (
            len([call for call in model if call[0] > now - seconds * 0.949])
            <= window.calls
            <= len([call for call in model if call[0] > now - seconds * 1.001])
        )


def test_a_window_is_empty_after_a_long_pause() -> None:
    window = SlidingWindow(10, 0)
    for _ in range(1000):
        window.add(3, failed=True, slow=True)
    window.advance(1e9)
    assert (window.calls, window.failures, window.slow) == (0, 0, 0)


def test_a_window_keeps_a_fixed_number_of_buckets() -> None:
    window = SlidingWindow(10, 0)
    for now in range(10_000):
        window.add(now / 100, failed=False, slow=False)
    assert len(window._counts) == BUCKETS
