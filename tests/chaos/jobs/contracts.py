"""The jobs of the bursts."""

from bus import Job, Message, contract
from bus.contracts.contract import Catalog

__all__ = ["SERVICE", "Done", "Step"]

SERVICE = "burst"
catalog = Catalog()


class Done(Message):
    """Result of a job."""

    number: int
    attempt: int


@contract("burst.step", version=1, catalog=catalog)
class Step(Job[Done]):
    """One job of a burst."""

    number: int
    fails_once: bool = False
