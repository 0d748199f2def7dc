"""A rate limit for each calling service."""

from dataclasses import dataclass

from bus.contracts.limits import check_count, check_seconds, describe, is_number
from bus.errors import ContractError

__all__ = ["RateLimit"]

MAX_REQUESTS = 1_000_000
MAX_SECONDS_PER_REQUEST = 86_400
"""Maximum seconds until a caller has one more token: a day. The error names them to the caller."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The maximum rate at which one service may send requests to a handler.

    The limit is the same for each calling service. Each of them has its own token bucket in each
    process of the handler. With `BUS_AUTH=off`, the caller is the name that the sender gives.

    >>> limit = RateLimit(100, per=1.0, burst=20)  # @router.request(GetInvoice, rate=limit)

    Raises:
        ContractError: A value is not valid. The error names the value.
    """

    requests: float
    """Number of requests in `per` seconds that one service may send, at least one in a day."""
    per: float = 1.0
    """Seconds."""
    burst: int | None = None
    """Number of requests that one service may send at once. None: `requests`, but at least 1."""

    def __post_init__(self) -> None:
        if not is_number(self.requests) or not 0 < self.requests <= MAX_REQUESTS:
            raise ContractError(
                f"RateLimit: requests must be a number above 0 and up to {MAX_REQUESTS}, not "
                f"{describe(self.requests)}. Write a number such as 100."
            )
        check_seconds(self.per, "per", "RateLimit", error=ContractError)
        if self.per / self.requests > MAX_SECONDS_PER_REQUEST:
            raise ContractError(
                "RateLimit: the rate is one request in more than "
                f"{MAX_SECONDS_PER_REQUEST} s, and a process does not keep the count for so long. "
                "Write a higher number of requests, or a shorter per."
            )
        if self.burst is not None:
            check_count(self.burst, "burst", "RateLimit", most=MAX_REQUESTS, error=ContractError)

    @property
    def per_second(self) -> float:
        """Number of requests per second."""
        return self.requests / self.per

    @property
    def size(self) -> float:
        """Number of tokens in a full bucket, at least 1."""
        return max(1.0, float(self.requests if self.burst is None else self.burst))
