"""Waits between attempts, computed by tenacity."""

from typing import Any

from tenacity import RetryCallState, wait_random_exponential
from tenacity.wait import wait_base

__all__ = ["backoff", "wait_seconds"]

# Full jitter (Brooker, "Exponential Backoff And Jitter", 2015). Each wait is at most 1 s, so the
# bus recovers soon after an outage.
RECONNECT = wait_random_exponential(multiplier=0.1, max=1)


def backoff(attempt: int, wait: wait_base = RECONNECT) -> float:
    """Return the seconds to wait before the next attempt.

    Args:
        attempt: Number of the failed attempt, from 1.
        wait: Strategy of tenacity. The default is a random wait (full jitter) of at most 1 s.
    """
    return wait_seconds(wait, attempt)


def wait_seconds(wait: wait_base, attempt: int) -> float:
    """Return the seconds to wait after a failed attempt, as the strategy `wait` computes them.

    Args:
        wait: Strategy of tenacity.
        attempt: Number of the failed attempt, from 1.
    """
    state = RetryCallState(retry_object=NO_RETRYING, fn=None, args=(), kwargs={})
    state.attempt_number = attempt
    return wait(state)


# `RetryCallState` requires a retry object, but tenacity's strategies read only the attempt number.
NO_RETRYING: Any = None
