from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware, compose
from tests.unit.fakes import envelope, virtual


async def echo(envelope: Envelope) -> Envelope | None:
    return envelope


def noting(name: str, notes: list[str]) -> Middleware:
    def layer(inner: Handler) -> Handler:
        async def call(envelope: Envelope) -> Envelope | None:
            notes.append(f"{name} begins")
            answer = await inner(envelope)
            notes.append(f"{name} ends")
            return answer

        return call

    return layer


def test_no_layers_are_the_handler_itself() -> None:
    assert compose([], echo) is echo


@virtual
async def test_the_first_listed_is_outermost() -> None:
    notes: list[str] = []
    message = envelope()
    assert await compose([noting("outer", notes), noting("inner", notes)], echo)(message) is message
    assert notes == ["outer begins", "inner begins", "inner ends", "outer ends"]
