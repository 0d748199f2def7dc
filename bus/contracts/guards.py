"""Checks of the values of a message that was encoded: pydantic encodes some values with a loss.

pydantic writes NaN and infinity as `null`, and leaves out the fields of a subclass. It validates a
message when the message is created. But it does not validate a value of the type `Any`, a standard
dataclass, and the changes of `model_copy`. So these values are checked when the message is sent.
"""

from typing import Any

from pydantic import BaseModel

from bus.contracts.check_compiler import EACH_BODY, CheckCompiler
from bus.contracts.depth import find_too_deep, is_too_deep
from bus.contracts.problems import Problem
from bus.contracts.value_checks import (
    Check,
)

__all__ = ["Guard", "check_object", "guard_for"]


class Guard:
    """Checks of one message class. It reads the values only if the encoded message looks lossy."""

    __slots__ = ("_check", "_classes", "_model", "_tokens", "has_inner_iterators", "iterators")

    def __init__(
        self,
        model: type[BaseModel],
        check: Check,
        compiler: CheckCompiler,
        iterators: tuple[str, ...],
    ) -> None:
        """Create the guard.

        Args:
            model: Class of the message.
            check: Check of a message.
            compiler: Compiler that has compiled the check.
            iterators: Fields of the message whose elements can be read only once.
        """
        self.iterators = iterators
        self.has_inner_iterators = compiler.generators > len(iterators)
        """True if a value inside a field is an iterator, such as in `list[Iterable[int]]`."""
        self._check = check
        tokens = {EACH_BODY} if EACH_BODY in compiler.tokens else compiler.tokens
        self._tokens = tuple(sorted(tokens))
        """Texts of which an encoded message contains one if a value can be lost."""
        self._classes = tuple(compiler.classes)
        """Classes in fields, which can have subclasses."""
        self._model = model if compiler.is_unbounded else None
        """Class of the message if its values can have any depth."""

    def find_problem(self, message: BaseModel, body: bytes) -> Problem | None:
        """Return the first field whose value was lost or cannot be decoded, or None."""
        problem = self._check(message) if self._looks_lossy(body) else None
        if problem is None and self._model is not None and is_too_deep(body):
            return find_too_deep(message, self._model)
        return problem

    def _looks_lossy(self, body: bytes) -> bool:
        for token in self._tokens:
            if token in body:
                return True
        # Loops, because each message with a float pays for a generator that `any` would need.
        for cls in self._classes:  # noqa: SIM110
            if cls.__subclasses__():
                return True
        return False


def guard_for(model: type[BaseModel]) -> Guard | None:
    """Return the guard of a complete model, or None if pydantic loses none of its values."""
    compiler = CheckCompiler(model)
    check, iterators = compiler.compile_message()
    if check is None and not compiler.generators and not compiler.is_unbounded:
        return None
    return Guard(model, check or _accept, compiler, iterators)


def _accept(_message: object) -> None:
    """Return no problem, for a message whose types lose no values."""


def check_object(value: Any) -> Problem | None:
    """Return the first problem of a model or pydantic dataclass that a field of any type holds."""
    cls = type(value)
    if cls not in _checks:
        _checks[cls] = CheckCompiler(cls, is_in_any=True).compile_whole()
    check = _checks[cls]
    return None if check is None else check(value)


_checks: dict[type, Check | None] = {}
"""Check of each class whose objects were found in a field of any type."""
