"""Limits of the calls to one service. The client attaches them to each request and job."""

from dataclasses import dataclass, field

__all__ = ["CallLimits", "timeout_advice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """The limits that the settings of this process have for the calls to one service."""

    setting: str | None = None
    """Setting that is the timeout of the message.

    None if the timeout comes from the caller, or from the message that is being handled.
    """
    retries: int | None = None
    """Maximum number of times that the client sends the message again. None sets no limit."""
    without_setting: "CallLimits | None" = field(init=False, repr=False, compare=False)
    """The limits of a message that has another timeout. None if no other limit is set."""

    def __post_init__(self) -> None:
        """Derive `without_setting` once, because many messages need it."""
        other: CallLimits | None = self
        if self.retries is None:
            other = None
        elif self.setting is not None:
            other = CallLimits(retries=self.retries)
        object.__setattr__(self, "without_setting", other)


def timeout_advice(limits: CallLimits | None, verb: str = "raise") -> str:
    """Return `raise the timeout`, with the name of the setting that is the timeout."""
    if limits is None or limits.setting is None:
        return f"{verb} the timeout"
    return f"{verb} the timeout ({limits.setting})"
