"""The contracts of the tests' services. The service `desk` owns all except `shop.price`."""

from bus.contracts.contract import Event, Job, Message, Request, contract


class Word(Message):
    text: str


@contract("desk.ask", version=1)
class Ask(Request[Word]):
    """A request that is not idempotent."""

    text: str = ""


@contract("desk.ask", version=2)
class AskNewly(Request[Word]):
    text: str = ""


@contract("desk.look", version=1, idempotent=True)
class Look(Request[Word]):
    text: str = ""


@contract("desk.silence", version=1)
class Hush(Request[None]):
    pass


@contract("desk.told", version=1)
class Told(Event):
    text: str = ""


@contract("desk.told", version=2)
class ToldNewly(Event):
    text: str = ""


@contract("desk.write", version=1)
class Write(Job[Word]):
    text: str = ""


@contract("desk.write", version=2)
class WriteNewly(Job[Word]):
    text: str = ""


@contract("shop.price", version=1)
class Price(Request[Word]):
    """A request to another service."""
