"""Contracts that the tests use."""

from bus.contracts.contract import Event, Job, Message, Request, contract


class Total(Message):
    total: int


@contract("ledger.total", version=1, idempotent=True)
class GetTotal(Request[Total]):
    account: str = "a"


@contract("ledger.add", version=1)
class Add(Request[Total]):
    amount: int = 1


@contract("ledger.clear", version=1)
class Clear(Request[None]):
    pass


@contract("ledger.close", version=1)
class CloseBooks(Job[Total]):
    year: int = 2026


@contract("ledger.closed", version=1)
class BooksClosed(Event):
    year: int = 2026
