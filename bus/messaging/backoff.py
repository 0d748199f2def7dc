"""Waits between attempts, computed by tenacity."""

from typing import Any

from tenacity import RetryCallState, wait_random_exponential
from tenacity.wait import wait_base

__all__ = ["backoff", "wait_seconds"]

# Full jitter (Brooker, "Exponential Backoff And Jitter", 2015). The limit of 1 s bounds the delay
# between the end of an outage and the recovery.
RECONNECT = wait_random_exponential(multiplier=0.1, max=1)


def backoff(attempt: int, wait: wait_base = RECONNECT) -> float:
    """Return the seconds to wait before the next attempt, with full jitter, at most 1.

    Args:
        attempt: Number of the failed attempt, from 1.
        wait: Another strategy of tenacity instead of the default.
    """
    return wait_seconds(wait, attempt)


def wait_seconds(wait: wait_base, attempt: int) -> float:
    """Return the seconds that `wait` prescribes after attempt number `attempt`, from 1."""
    state = RetryCallState(retry_object=NO_RETRYING, fn=None, args=(), kwargs={})
    state.attempt_number = attempt
    return wait(state)


# tenacity's strategies read only the number of the attempt from the state.
NO_RETRYING: Any = None
