import functools
import math
from datetime import timedelta
from typing import Any

import pytest

from bus.contracts.contract import Catalog, Event, contract, contract_of
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import ContractError, ContractViolation, FailedPrecondition, Internal, Unimplemented
from bus.messaging.context import Context, handling
from bus.messaging.resilience.adaptive_limit import AdaptiveLimit
from bus.runtime.router import Router
from tests.unit.fakes import NoSender, envelope, virtual
from tests.unit.ledger import Add, BooksClosed, Clear, CloseBooks, Total

QUEUE = "ledger.requests.add.v1"


async def add(request: Add) -> Total:
    return Total(total=request.amount)


async def handled(router: Router, **attributes: Any) -> Any:
    message = envelope(**{"queue": QUEUE, "body": b'{"amount": 2}', **attributes})
    with handling(Context(envelope=message, bus=NoSender(), state="state")):
        return await router(message)


def test_a_handler_without_a_policy_has_its_contracts() -> None:
    @contract("ledger.counted", version=1, retry=RetryPolicy(delays=(5, 600)), catalog=Catalog())
    class Counted(Event):
        pass

    async def on_counted(_: Counted) -> None:
        pass

    router = Router("ledger")
    router.event(Counted)(on_counted)
    router.event(Counted, subscription="own", retry=RetryPolicy(attempts=1))(on_counted)
    first, second = router.endpoints.values()
    assert (first.tiers(), second.tiers()) == (("5s", "10m", "30s"), ("30s",))


@virtual
async def test_a_handler_gets_its_message_and_its_answer_is_the_reply() -> None:
    router = Router("ledger")
    router.request(Add)(add)
    answer = await handled(router)
    assert (answer.type, answer.body, answer.source) == (
        "ledger.add.v1.reply",
        b'{"total":2}',
        "ledger",
    )


class Adder:
    async def __call__(self, request: Add) -> Total:
        return Total(total=request.amount)

    async def method(self, request: Add, context: Context) -> Total:
        return Total(total=request.amount + len(context.state))


async def with_context(request: Add, context: Context) -> Total:
    return Total(total=request.amount + len(context.state))


async def with_options(request: Add, *more: int, scale: int = 3, **other: int) -> Total:
    return Total(total=request.amount * scale)


async def by_name(request: Add, *, context: Context) -> Total:
    return Total(total=request.amount + len(context.state))


@pytest.mark.parametrize(
    ("handler", "total"),
    [
        (with_context, 7),
        (Adder(), 2),
        (Adder().method, 7),
        (functools.partial(with_options, scale=5), 10),
        (with_options, 6),
        (by_name, 7),
    ],
    ids=["context", "callable", "method", "partial", "options", "keyword"],
)
def test_anything_that_can_be_awaited_with_a_message_is_a_handler(handler: Any, total: int) -> None:
    @virtual
    async def run() -> None:
        router = Router("ledger")
        router.request(Add)(handler)
        assert (await handled(router)).body == f'{{"total":{total}}}'.encode()

    run()


def plain(request: Add) -> Total:
    return Total(total=1)


async def nothing() -> Total:
    return Total(total=1)


async def three(request: Add, context: Context, more: int) -> Total:
    return Total(total=1)


async def generator(request: Add) -> Any:
    yield Total(total=1)


@pytest.mark.parametrize("handler", [plain, nothing, three, generator, lambda request: request])
def test_what_could_not_be_called_is_refused_at_once(handler: Any) -> None:
    with pytest.raises(ContractError, match=rf"{__name__}\."):
        Router("ledger").request(Add)(handler)


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (nothing, r"nothing has no positional parameter for the message\."),
        (three, r"three: the required parameter 'more' has the type int, which the bus cannot"),
    ],
)
def test_a_refused_handler_is_told_which_parameters_are_wrong(handler: Any, problem: str) -> None:
    with pytest.raises(ContractError, match=problem):
        Router("ledger").request(Add)(handler)


def test_only_its_owner_serves_a_contract() -> None:
    for register in (
        lambda: Router("office").request(Add),
        lambda: Router("office").job(CloseBooks),
    ):
        with pytest.raises(
            ContractError,
            match=r"belongs to the service 'ledger', but this router belongs to 'office'",
        ):
            register()


def test_a_contract_is_registered_as_what_it_is() -> None:
    router = Router("ledger")
    wrong: list[Any] = [
        lambda: router.job(Add),  # type: ignore[arg-type]
        lambda: router.event(Add),  # type: ignore[type-var]
        lambda: router.request(CloseBooks),  # type: ignore[arg-type]
    ]
    for register in wrong:
        with pytest.raises(
            ContractError, match=r"Register its handler with @router\.(request|job)"
        ):
            register()


def test_a_request_has_one_handler_and_both_are_named() -> None:
    router = Router("ledger")
    router.request(Add)(add)
    with pytest.raises(
        ContractError,
        match=r"two handlers in ledger: .*\.add and .*\.with_context\. Remove one of them\.$",
    ):
        router.request(Add)(with_context)


async def on_closed(event: BooksClosed) -> None: ...


def test_two_handlers_of_an_event_need_two_subscriptions() -> None:
    router = Router("archive")
    router.event(BooksClosed)(on_closed)
    with pytest.raises(ContractError, match="Set a different subscription for each"):
        router.event(BooksClosed)(on_closed)
    router.event(BooksClosed, subscription="index")(on_closed)
    assert [*router.endpoints] == [
        "archive.events.ledger.closed.v1",
        "archive.events.ledger.closed.v1.index",
    ]


def test_an_endpoint_uses_the_tiers_of_its_policy() -> None:
    router = Router("archive")
    router.event(BooksClosed, retry=RetryPolicy(attempts=5))(on_closed)
    (endpoint,) = router.endpoints.values()
    assert endpoint.tiers() == ("1s", "5s", "30s", "10m")


def test_a_routers_topology_is_that_of_its_endpoints() -> None:
    router = Router("ledger")
    router.request(Add)(add)
    ((name, (queue, topology)),) = router.topology(quorum_requests=True).items()
    assert (name, queue.arguments["x-queue-type"]) == (QUEUE, "quorum")
    assert topology.bindings[0].routing_key == contract_of(Add).type


@pytest.mark.parametrize("answer", [None, 3, {"total": 1}, Add(amount=1)])
def test_a_handler_that_answers_something_else_is_at_fault_itself(answer: Any) -> None:
    async def wrong(request: Add) -> Any:
        return answer

    @virtual
    async def run() -> None:
        router = Router("ledger")
        router.request(Add)(wrong)
        with pytest.raises(Internal, match=r"returned \w+, not Total"):
            await handled(router)

    run()


@virtual
async def test_a_request_without_content_in_its_answer_must_answer_none() -> None:
    async def clear(request: Clear) -> Any:
        return Total(total=1)

    router = Router("ledger")
    router.request(Clear)(clear)
    with pytest.raises(Internal, match="returned Total, not None"):
        await handled(router, type_="ledger.clear.v1", queue="ledger.requests.clear.v1")


@virtual
async def test_what_a_subclass_adds_to_an_answer_stays_here() -> None:
    class Audited(Total):
        auditor: str = "Eleonora Quist"

    async def audited(request: Add) -> Total:
        return Audited(total=1)

    router = Router("ledger")
    router.request(Add)(audited)
    assert (await handled(router)).body == b'{"total":1}'


@virtual
async def test_an_event_has_no_answer() -> None:
    router = Router("archive")
    router.event(BooksClosed)(on_closed)
    assert (
        await handled(router, type_="ledger.closed.v1", queue="archive.events.ledger.closed.v1")
        is None
    )


@virtual
async def test_what_is_not_served_from_its_queue_is_unimplemented() -> None:
    router = Router("ledger")
    router.request(Add)(add)
    for wrong in (
        {"type_": "ledger.add.v2"},
        {"queue": "ledger.requests.other.v1"},
        {"queue": None},
    ):
        with pytest.raises(Unimplemented):
            await handled(router, **wrong)


@virtual
async def test_a_payload_that_breaks_its_contract_reaches_no_handler() -> None:
    router = Router("ledger")
    router.request(Add)(add)
    with pytest.raises(ContractViolation, match=r"^ledger\.add\.v1: amount: must be an integer\.$"):
        await handled(router, body=b'{"amount": "x"}')


@virtual
async def test_a_router_needs_a_context() -> None:
    with pytest.raises(FailedPrecondition, match=r"Bus\.serving"):
        await Router("ledger")(envelope())


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf])
def test_a_timeout_that_is_no_time_is_refused(timeout: float) -> None:
    """Register a timeout by which every message would fail."""
    router = Router("ledger")
    with pytest.raises(
        ContractError,
        match=rf"ledger\.close\.v1: timeout must be a number of seconds .*, not {timeout:g}",
    ):
        router.job(CloseBooks, timeout=timeout)
    with pytest.raises(ContractError, match=r"ledger\.closed\.v1: timeout must be"):
        router.event(BooksClosed, timeout=timeout)


@virtual
async def test_an_event_without_fields_may_have_the_body_null() -> None:
    @contract("ledger.opened", version=1, catalog=Catalog())
    class Opened(Event):
        pass

    router, heard = Router("ledger"), []

    @router.event(Opened)
    async def on_opened(event: Opened) -> None:
        heard.append(event)

    queue = "ledger.events.ledger.opened.v1"
    await handled(router, queue=queue, type_="ledger.opened.v1", body=b"null")
    assert heard == [Opened()]


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "4", None, math.nan, 65536])
def test_a_concurrency_that_is_not_a_count_is_refused(concurrency: Any) -> None:
    router = Router("ledger")
    for register in (
        lambda: router.request(Add, concurrency=concurrency),
        lambda: router.job(CloseBooks, concurrency=concurrency),
        lambda: router.event(BooksClosed, concurrency=concurrency),
    ):
        with pytest.raises(
            ContractError,
            match=r"ledger\.\w+\.v1: concurrency must be a whole number from 1 to 65535",
        ):
            register()


def test_a_handler_with_an_adaptive_limit_begins_at_its_first_number() -> None:
    router, limit = Router("ledger"), AdaptiveLimit(max=64, start=8)

    @router.request(Add, concurrency=limit)
    async def add(_: Add) -> Total:
        return Total(total=1)

    (endpoint,) = router.endpoints.values()
    assert (endpoint.concurrency, endpoint.adaptive) == (8, limit)


@pytest.mark.parametrize("timeout", ["5", True, None, timedelta(seconds=5)])
def test_a_timeout_of_another_type_is_refused(timeout: Any) -> None:
    router = Router("ledger")
    for register in (
        lambda: router.job(CloseBooks, timeout=timeout),
        lambda: router.event(BooksClosed, timeout=timeout),
    ):
        with pytest.raises(ContractError, match=r"ledger\.\w+\.v1: timeout must be a number of"):
            register()


@pytest.mark.parametrize("retry", [3, 0, False, RetryPolicy, {"attempts": 3}])
def test_a_retry_that_is_not_a_policy_is_refused(retry: Any) -> None:
    router = Router("ledger")
    for register in (
        lambda: router.job(CloseBooks, retry=retry),
        lambda: router.event(BooksClosed, retry=retry),
    ):
        with pytest.raises(
            ContractError,
            match=r"ledger\.\w+\.v1: retry must be a RetryPolicy, not a value of type \w+\. "
            r"Write retry=RetryPolicy\(attempts=3\)",
        ):
            register()


def test_names_that_are_not_text_are_refused() -> None:
    with pytest.raises(ContractError, match="the name of a service must be a str, not a value"):
        Router(3)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match="the name of a subscription must be a str"):
        Router("ledger").event(BooksClosed, subscription=3)  # type: ignore[arg-type]


def test_a_decorator_without_its_contract_is_refused() -> None:
    router, message = Router("ledger"), Add()
    with pytest.raises(
        ContractError, match=r"test_router\.add is not the class of a contract.*@router\.request\("
    ):
        router.request(add)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match="a value of type Add is not the class of a contract"):
        router.request(message)
    with pytest.raises(ContractError, match=r"has no contract\. Decorate it"):
        router.request(Total)  # type: ignore[arg-type]
