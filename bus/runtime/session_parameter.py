"""The parameter of a transactional handler that receives the session of the store."""

import sys
from collections.abc import Sequence
from inspect import Parameter
from typing import Any

from bus.contracts.contract import Contract
from bus.errors import ContractError
from bus.runtime.declared_parameters import types_in

__all__ = ["check_takes_session", "find_session", "is_session", "session_refusal"]

LIBRARY = "sqlalchemy.ext.asyncio"


def is_session(annotation: Any) -> bool:
    """Return True for `AsyncSession` of SQLAlchemy, and for unions with it.

    SQLAlchemy is not imported: an annotation can name the class only after its module is imported.
    """
    library = sys.modules.get(LIBRARY)
    return library is not None and library.AsyncSession in types_in(annotation)


def find_session(
    others: Sequence[Parameter], contract: Contract, path: str, *, is_transactional: bool
) -> Parameter | None:
    """Return the parameter for the session of a transactional handler.

    Args:
        others: The parameters after the message, without those with `Depends`.
        contract: The contract of the message.
        path: The name of the handler in error messages.
        is_transactional: True if the handler is declared with `transactional=True`.

    Raises:
        ContractError: Two parameters are the session, or a handler without a transaction requires
            one.
    """
    sessions = [each for each in others if is_session(each.annotation)]
    if not is_transactional:
        required = [each for each in sessions if each.default is Parameter.empty]
        if required:
            raise ContractError(session_refusal(required[0].name, contract, path))
        return None
    if len(sessions) > 1:
        names = " and ".join(repr(each.name) for each in sessions)
        raise ContractError(
            f"{path}: the parameters {names} both are the AsyncSession. Remove one of them."
        )
    return sessions[0] if sessions else None


def session_refusal(name: str, contract: Contract, path: str) -> str:
    """Return the text of the error about a session for a handler without a transaction."""
    problem = f"{path}: the parameter {name!r} is an AsyncSession, and only a transactional handler"
    if contract.kind == "request":
        return (
            f"{problem} of an event or job receives one. Give the parameter Depends(…) with a "
            "session of your own, or let the handler submit a job that writes."
        )
    return (
        f"{problem} receives one. Write @router.{contract.kind}({contract.model.__name__}, "
        "transactional=True), or give the parameter Depends(…) with a session of your own."
    )


def check_takes_session(path: str, *, takes_session: bool) -> None:
    """Check that a transactional handler or one of its dependencies takes the session.

    Raises:
        ContractError: None of them takes it, so the handler cannot write in the transaction.
    """
    if not takes_session:
        raise ContractError(
            f"{path} is transactional, but takes no session. Give the handler, or a function that "
            "it names in Depends, a parameter with the annotation AsyncSession of "
            f"{LIBRARY}, or remove transactional=True."
        )
