"""Waits between attempts, computed by tenacity."""

from typing import Any

from tenacity import RetryCallState, wait_random_exponential
from tenacity.wait import wait_base

__all__ = ["backoff", "wait_seconds"]

# Full jitter (Brooker, "Exponential Backoff And Jitter", 2015). The limit of 1 s bounds the delay
# between the end of an outage and the recovery.
RECONNECT = wait_random_exponential(multiplier=0.1, max=1)


def backoff(attempt: int, wait: wait_base = RECONNECT) -> float:
    """Return the seconds to wait before the next attempt.

    Args:
        attempt: Number of the failed attempt, from 1.
        wait: Strategy of tenacity. The default is a random wait (full jitter) of at most 1 s.
    """
    return wait_seconds(wait, attempt)


def wait_seconds(wait: wait_base, attempt: int) -> float:
    """Return the seconds to wait after attempt number `attempt`, from 1, by strategy `wait`."""
    state = RetryCallState(retry_object=NO_RETRYING, fn=None, args=(), kwargs={})
    state.attempt_number = attempt
    return wait(state)


# tenacity's strategies read only the attempt number, so the state needs no retry object.
NO_RETRYING: Any = None
