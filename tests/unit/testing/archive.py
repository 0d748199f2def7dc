"""The service under test."""

from bus import Context, Event, Job, Message, Request, RetryPolicy, Router, Sensitive, contract


class Place(Message):
    shelf: str


@contract("archive.find", version=1)
class Find(Request[Place]):
    title: str


@contract("desk.lend", version=1)
class Lend(Request[Place]):
    title: str


@contract("archive.store", version=1)
class Store(Job[Place]):
    title: str
    owner: Sensitive[str] = ""


@contract("archive.stored", version=1)
class Stored(Event):
    title: str
    place: Place = Place(shelf="B1")


def archive() -> Router:
    """Return a router whose handlers fail for the title `torn`."""
    router = Router("archive")

    @router.request(Find)
    async def find(request: Find) -> Place:
        return Place(shelf=shelf_of(request.title))

    @router.job(Store, retry=RetryPolicy(attempts=2, delays=(5,)))
    async def store(job: Store, context: Context) -> Place:
        place = Place(shelf=shelf_of(job.title))
        await context.bus.publish(Stored(title=job.title, place=place))
        return place

    return router


def catalogue() -> Router:
    """Return a router with a named subscription of `Stored`."""
    router = Router("catalogue")

    @router.event(Stored, subscription="shelves")
    async def on_stored(event: Stored) -> None:
        shelf_of(event.title)

    return router


def shelf_of(title: str) -> str:
    if title == "torn":
        raise LookupError(title)
    return "B1"
