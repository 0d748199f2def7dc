"""A dependency: a system outside the bus that handlers need, such as a database or an HTTP API."""

from dataclasses import dataclass
from typing import Final

from bus.contracts.limits import check_count, check_seconds
from bus.contracts.names import check_part
from bus.errors import ContractError, member_errors
from bus.messaging.resilience.call_policy import BreakerPolicy

__all__ = ["MAX_PROBE_INTERVAL", "MIN_PROBE_INTERVAL", "Dependency"]

MIN_PROBE_INTERVAL: Final = 1.0
"""Minimum of `probe_interval`. The shortest retry tier waits for this time."""
MAX_PROBE_INTERVAL: Final = 3600.0
"""Maximum of `probe_interval`. After the return of the dependency, messages wait up to this time.
"""
MAX_THRESHOLD: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """A system outside the bus that a handler needs, and the errors that show that it is down.

    After `consecutive_failures` such errors in a row, the breaker of the dependency opens. Then the
    process hands one message to a handler in each `probe_interval`, until a handler succeeds. All
    handlers of one process that name the dependency share the breaker.

    >>> EHR = Dependency(name="ehr", failures=(ConnectionError,), probe_interval=10)

    Raises:
        ContractError: A value is not valid. The error names the value.
    """

    name: str
    """Name in lower-case letters, digits and dashes, for logs, metrics and `bus breakers`."""
    failures: tuple[type[Exception], ...]
    """Classes of the errors that a handler raises if the dependency is down.

    An exception group counts as a failure if one of its errors does. The cause of an error does not
    count: a handler that raises another error decides how the bus treats the message.
    """
    consecutive_failures: int = 5
    """Number of consecutive failures that opens the breaker."""
    probe_interval: float = 30.0
    """Seconds between two probes, from 1 to 3600."""

    def __post_init__(self) -> None:
        subject = _check_name(self.name)
        _check_failures(self.failures, subject)
        check_count(
            self.consecutive_failures,
            "consecutive_failures",
            subject,
            most=MAX_THRESHOLD,
            error=ContractError,
        )
        check_seconds(
            self.probe_interval,
            "probe_interval",
            subject,
            shortest=MIN_PROBE_INTERVAL,
            longest=MAX_PROBE_INTERVAL,
            error=ContractError,
        )

    @property
    def policy(self) -> BreakerPolicy:
        """The policy of the breaker. Only consecutive failures open it, and one success closes it.

        The longest open time is the interval, so the breaker adds no jitter to it.
        """
        return BreakerPolicy(
            min_calls=2**31 - 1,
            consecutive_failures=self.consecutive_failures,
            open_time=self.probe_interval,
            open_growth=1.0,
            longest_open_time=self.probe_interval,
            successes=1,
        )

    def failure_in(self, error: BaseException) -> BaseException | None:
        """Return the error that shows that the dependency is down, or None.

        The error of an exception group is its first member that is a failure.
        """
        if isinstance(error, self.failures):
            return error
        if not isinstance(error, BaseExceptionGroup):
            return None
        return next(
            (each for each in member_errors(error) if isinstance(each, self.failures)), None
        )


def _check_name(name: object) -> str:
    if not isinstance(name, str):
        raise ContractError(
            f"dependency must be a name or a Dependency, not a value of type "
            f'{type(name).__name__}. Write dependency="ehr".'
        )
    try:
        check_part(name, "dependency")
    except ContractError as error:
        raise ContractError(f"dependency: {error}.") from None
    return f"dependency {name!r}"


def _check_failures(failures: object, subject: str) -> None:
    if not isinstance(failures, tuple) or not failures:
        given = "an empty tuple" if failures == () else f"a value of type {type(failures).__name__}"
        raise ContractError(
            f"{subject}: failures must be a tuple of at least one exception class, not {given}. "
            "Name the errors that handlers raise if the dependency is down, such as "
            "failures=(ConnectionError,)."
        )
    for each in failures:
        if not isinstance(each, type) or not issubclass(each, Exception):
            given = each.__name__ if isinstance(each, type) else f"a {type(each).__name__}"
            raise ContractError(
                f"{subject}: failures must contain only subclasses of Exception, not {given}. "
                "Write the class of the error, such as failures=(ConnectionError,)."
            )
        if each in {Exception, ExceptionGroup}:
            raise ContractError(
                f"{subject}: failures cannot contain {each.__name__}, because a bug of the handler "
                "would count as a failure of the dependency. Name the errors of the dependency. "
                "An exception group counts if one of its errors is among them."
            )
