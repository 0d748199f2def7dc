"""Tests of the parameters that a handler may have."""

import functools
import importlib
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn, SupportsInt, TypeVar

import pytest

from bus.contracts.contract import Message, Request
from bus.errors import ContractError, Internal
from bus.messaging.context import Context, handling
from bus.runtime.dependencies import Depends
from bus.runtime.router import Router
from tests.unit.fakes import NoSender, envelope, virtual
from tests.unit.ledger import Add, BooksClosed, Clear, Total
from tests.unit.runtime import deferred
from tests.unit.runtime.deferred import Counting, passing_on, sync_passing_on

ROOT = Path(__file__).parents[3]
STATE = "state"


async def answered(router: Router, amount: int = 2) -> int:
    message = envelope(queue="ledger.requests.add.v1", body=b'{"amount": %d}' % amount)
    with handling(Context(envelope=message, bus=NoSender(), state=STATE)):
        reply = await router(message)
    assert reply is not None
    return Total.model_validate_json(reply.body).total


def total_of(handler: Any) -> int:
    """Register a handler, and return its answer to the amount 2."""
    totals: list[int] = []

    @virtual
    async def run() -> None:
        router = Router("ledger")
        router.request(Add)(handler)
        totals.append(await answered(router))

    run()
    return totals[0]


def refusal(handler: Any) -> str:
    with pytest.raises(ContractError) as error:
        Router("ledger").request(Add)(handler)
    return str(error.value)


# --- deferred annotations ---


@pytest.mark.parametrize(
    ("handler", "total"),
    [
        (deferred.with_dependency, 12),
        (deferred.with_hidden_name, 7),
        (deferred.with_context, 7),
        (deferred.with_optional_context, 5),
        (functools.partial(deferred.with_dependency), 12),
        (passing_on(deferred.with_dependency), 12),
        (sync_passing_on(deferred.with_dependency), 12),
        (Counting(deferred.with_dependency), 12),
    ],
    ids=["dependency", "name", "context", "optional", "partial", "wrapper", "plain", "object"],
)
def test_deferred_annotations_give_a_handler_its_parameters(handler: Any, total: int) -> None:
    assert total_of(handler) == total


@pytest.mark.parametrize("register", [deferred.local_handler, deferred.method_of_local_class])
def test_deferred_annotations_may_name_local_variables(register: Callable[[Router], None]) -> None:
    @virtual
    async def run() -> None:
        router = Router("ledger")
        register(router)
        assert await answered(router) in {22, 32}

    run()


def test_a_deferred_dependency_loads_its_library_itself() -> None:
    """Use a new process, because `Depends` has loaded the library here."""
    program = (
        "from tests.unit.runtime import deferred\n"
        "from bus import Router\n"
        "import sys\n"
        "assert 'fast_depends' not in sys.modules\n"
        "router = Router('ledger')\n"
        "router.request(deferred.Add)(deferred.with_dependency)\n"
        "(endpoint,) = router.endpoints.values()\n"
        "print(endpoint.function is not deferred.with_dependency)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize(
    ("handler", "parameter", "name"),
    [
        (deferred.with_late_dependency, "rate", "Decimal"),
        (deferred.with_late_context, "context", "LateContext"),
        (deferred.with_late_optional_context, "context", "LateContext"),
        (deferred.with_late_message, "request", "Decimal"),
    ],
)
def test_a_name_that_only_type_checkers_import_is_refused_with_its_parameter(
    handler: Any, parameter: str, name: str
) -> None:
    text = refusal(handler)
    assert f"the annotation of the parameter {parameter!r} cannot be evaluated" in text
    assert f"the name {name!r} is unknown" in text
    assert "not only under TYPE_CHECKING" in text


def opened() -> int:
    return 40


async def partly_unknown(
    request: Add,
    number: Annotated["Unknown", Depends(opened)],  # type: ignore[name-defined]  # noqa: F821
) -> Total:
    return Total(total=request.amount + number)


def test_a_dependency_of_an_unknown_type_is_still_injected() -> None:
    assert total_of(partly_unknown) == 42


# --- annotations tell parameters apart ---


async def without_annotation(request: Add, context) -> Total:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return Total(total=0)


async def of_another_type(request: Add, pool: dict[str, int]) -> Total:
    return Total(total=0)


async def of_any_type(request: Add, context: Any) -> Total:
    return Total(total=0)


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (without_annotation, "the required parameter 'context' has no annotation"),
        (of_another_type, "the required parameter 'pool' has the type dict, which the bus cannot"),
        (of_any_type, "the required parameter 'context' has the type Any, which the bus cannot"),
    ],
)
def test_a_second_parameter_is_never_the_context_because_of_its_position(
    handler: Any, problem: str
) -> None:
    text = refusal(handler)
    assert problem in text
    assert "Annotate it with Context, or give it Depends(…) or a default." in text


async def default_context(request: Add, context: Context | None = None) -> Total:
    return Total(total=-1 if context is None else len(context.state))


async def default_context_by_name(request: Add, *, context: Context | None = None) -> Total:
    return Total(total=-1 if context is None else len(context.state))


async def context_after_an_option(
    request: Add, scale: int = 3, context: Context | None = None
) -> Total:
    return Total(total=-1 if context is None else len(context.state) * scale)


async def context_with_a_note(request: Add, context: Annotated[Context, "a note"]) -> Total:
    return Total(total=len(context.state))


async def default_context_with_dependency(
    request: Add, context: Context | None = None, number: int = Depends(opened)
) -> Total:
    return Total(total=-1 if context is None else len(context.state) + number)


@pytest.mark.parametrize(
    ("handler", "total"),
    [
        (default_context, 5),
        (default_context_by_name, 5),
        (context_after_an_option, 15),
        (context_with_a_note, 5),
        (default_context_with_dependency, 45),
        (functools.partial(default_context), 5),
    ],
)
def test_a_context_with_a_default_is_filled_too(handler: Any, total: int) -> None:
    assert total_of(handler) == total


def test_a_parameter_that_a_partial_has_set_stays_as_it_is() -> None:
    own = Context(envelope=envelope(), bus=NoSender(), state="of the partial")
    assert total_of(functools.partial(default_context, context=own)) == len("of the partial")
    assert total_of(functools.partial(deferred.with_dependency, pool=deferred.Pool())) == 12


async def context_first(context: Context, request: Add) -> Total:
    return Total(total=0)


async def wrong_message(request: Clear) -> Total:
    return Total(total=0)


async def text_message(request: str) -> Total:
    return Total(total=0)


@pytest.mark.parametrize(
    ("handler", "shown"),
    [
        (context_first, "'context' has the type Context"),
        (wrong_message, "'request' has the type Clear"),
        (text_message, "'request' has the type str"),
    ],
)
def test_a_first_parameter_that_is_not_the_message_is_refused(handler: Any, shown: str) -> None:
    text = refusal(handler)
    assert f"the first parameter {shown}, but the message is of the class Add" in text


async def takes_base(request: Message) -> Total:
    return Total(total=1)


async def takes_parent(request: Request[Total]) -> Total:
    return Total(total=2)


async def takes_union(request: Add | Clear) -> Total:
    return Total(total=3)


async def takes_anything(request: Any) -> Total:
    return Total(total=4)


async def takes_untyped(request) -> Total:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return Total(total=5)


async def takes_default(request: Add = Add(amount=1)) -> Total:  # noqa: B008
    return Total(total=request.amount)


@pytest.mark.parametrize(
    ("handler", "total"),
    [
        (takes_base, 1),
        (takes_parent, 2),
        (takes_union, 3),
        (takes_anything, 4),
        (takes_untyped, 5),
        (takes_default, 2),
    ],
)
def test_a_first_parameter_of_a_wider_type_is_the_message(handler: Any, total: int) -> None:
    assert total_of(handler) == total


async def two_contexts(request: Add, context: Context, again: Context) -> Total:
    return Total(total=0)


async def two_dependencies(
    request: Add,
    number: Annotated[int, Depends(opened)] = Depends(opened),
) -> Total:
    return Total(total=0)


async def hidden_dependency(
    request: Add, number: Annotated[int, Depends(opened)] | None = None
) -> Total:
    return Total(total=0)


async def forgotten_call(request: Add, number: Any = Depends) -> Total:
    return Total(total=0)


async def message_named_context(context: Add, number: int = Depends(opened)) -> Total:
    return Total(total=0)


def takes_context_as_ctx(ctx: Context | None = None) -> int:
    return -1 if ctx is None else 1


async def dependency_with_ctx(request: Add, number: int = Depends(takes_context_as_ctx)) -> Total:
    return Total(total=0)


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        (two_contexts, "the parameters 'context' and 'again' both are the Context"),
        (two_dependencies, "the parameter 'number' has 2 dependencies"),
        (hidden_dependency, "Depends is inside of the annotation of the parameter 'number'"),
        (forgotten_call, "the parameter 'number' has Depends without a function"),
        (message_named_context, "the message cannot have the name 'context'"),
        (dependency_with_ctx, "a dependency takes the context as ctx"),
    ],
)
def test_a_parameter_that_would_stay_empty_or_get_another_value_is_refused(
    handler: Any, problem: str
) -> None:
    assert problem in refusal(handler)


# --- methods ---


def test_a_method_in_a_class_body_is_refused_with_the_form_that_works() -> None:
    router = Router("ledger")
    with pytest.raises(
        ContractError,
        match=r"Ledger\.add is a method, and its first parameter 'self' is not the message\. "
        r"Register the method of an object: router\.request\(Add\)\(self\.add\)",
    ):

        class Ledger:
            @router.request(Add)  # type: ignore[arg-type]
            async def add(self, request: Add) -> Total:  # type: ignore[misc]
                return Total(total=1)

    assert not router.endpoints


def test_a_method_that_annotates_its_object_is_refused_with_the_form_that_works() -> None:
    with pytest.raises(ContractError, match=r"Noted\.add is a method, .*\(self\.add\)"):

        class Noted:
            @Router("ledger").request(Add)  # type: ignore[arg-type]
            async def add(self: "Noted", request: Add) -> Total:  # type: ignore[misc]
                return Total(total=1)

    with pytest.raises(
        ContractError, match=r"Other\.add is a method, .* 'this' is not the message"
    ):

        class Other:
            @Router("ledger").request(Add)  # type: ignore[arg-type]
            async def add(this: "Other") -> Total:  # type: ignore[misc]  # noqa: N805
                return Total(total=1)

    with pytest.raises(ContractError, match=r"Own\.add is a method, .* 'self' is not the message"):

        class Own:
            @Router("ledger").request(Add)
            async def add(self: "Self", request: Add) -> Total:  # type: ignore[misc, name-defined]  # noqa: F821
                return Total(total=1)

    with pytest.raises(ContractError, match=r"AtTop\.add is a method, .*\(self\.add\)"):
        importlib.reload(importlib.import_module("tests.unit.runtime.deferred_method"))


def test_a_static_method_in_a_class_body_is_a_handler() -> None:
    @virtual
    async def run() -> None:
        router = Router("ledger")

        class Static:
            @router.request(Add)
            @staticmethod
            async def add(request: Add, context: Context) -> Total:
                return Total(total=request.amount + len(context.state))

        assert await answered(router) == 7
        own = Context(envelope=envelope(), bus=NoSender(), state="ab")
        assert (await Static.add(Add(amount=1), own)).total == 3

        other = Router("ledger")

        class Below:
            @staticmethod
            @other.request(Add)
            async def add(request: Add) -> Total:
                return Total(total=request.amount)

        assert await answered(other) == 2
        assert (await Below.add(Add(amount=1))).total == 1

    run()


class Ledger:
    """A class-based service: the object registers its methods."""

    def __init__(self, router: Router, base: int) -> None:
        self.base = base
        router.request(Add)(self.add)

    async def add(self, request: Add, context: Context) -> Total:
        return Total(total=self.base + request.amount + len(context.state))

    async def untyped(self, request) -> Total:  # type: ignore[no-untyped-def]  # noqa: ANN001
        return Total(total=0)

    async def without_message(self) -> Total:
        return Total(total=0)

    async def of_another_name(this, request: Add) -> Total:  # noqa: N805
        return Total(total=0)

    @classmethod
    async def of_the_class(cls, request: Add) -> Total:
        return Total(total=8)

    @staticmethod
    async def static(request: Add) -> Total:
        return Total(total=9)


@pytest.mark.parametrize(
    "method", [Ledger.add, Ledger.untyped, Ledger.without_message, Ledger.of_another_name]
)
def test_a_method_without_its_object_is_refused(method: Any) -> None:
    assert "is a method, and its first parameter" in refusal(method)


@virtual
async def test_an_object_registers_its_own_methods() -> None:
    router = Router("ledger")
    Ledger(router, base=100)
    assert await answered(router) == 107


def test_methods_of_a_class_and_static_methods_are_handlers() -> None:
    assert (total_of(Ledger.of_the_class), total_of(Ledger.static)) == (8, 9)


def test_a_class_is_refused_with_the_form_that_works() -> None:
    assert "is a class. Register an instance of it" in refusal(Ledger)


def test_a_value_that_is_not_a_handler_is_refused() -> None:
    for value in (None, 3, "add"):
        assert f"a value of type {type(value).__name__} is not a coroutine function" in refusal(
            value
        )
    assert "its parameters cannot be read" in refusal(functools.cache(add))


def test_a_classmethod_in_a_class_body_is_refused() -> None:
    assert "is a classmethod" in refusal(vars(Ledger)["of_the_class"])


# --- the annotation of the result ---


async def returns_number(request: Add) -> int:
    return 1


async def returns_nothing(request: Add) -> None: ...


async def returns_another(request: Add) -> "Clear | None":
    return None


async def returns_maybe(request: Add) -> Total | None:
    return Total(total=1)


async def returns_dict(request: Add) -> dict[str, int]:
    return {"total": 1}


class Adder:
    async def __call__(self, request: Add) -> int:
        return 1

    async def add(self, request: Add) -> bool:
        return True


@pytest.mark.parametrize(
    ("handler", "shown"),
    [
        (returns_number, "int"),
        (returns_nothing, "None"),
        (returns_another, "Clear | None"),
        (returns_dict, "dict"),
        (functools.partial(returns_number), "int"),
        (Adder(), "int"),
        (Adder().add, "bool"),
        (deferred.returns_number, "int"),
    ],
)
def test_a_handler_whose_annotated_result_is_never_the_reply_is_refused(
    handler: Any, shown: str
) -> None:
    text = refusal(handler)
    assert f"the handler returns {shown}, but the reply of ledger.add.v1 is Total. " in text
    assert "Return Total, and write it as the annotation of the result." in text


async def pays(event: BooksClosed) -> bool:
    return True


def test_an_event_handler_with_an_annotated_result_is_refused() -> None:
    with pytest.raises(
        ContractError, match=r"the handler returns bool, but the result of .* is None\."
    ):
        Router("ledger").event(BooksClosed)(pays)  # type: ignore[arg-type]


class Audited(Total):
    auditor: str = ""


T = TypeVar("T")


async def returns_subclass(request: Add) -> Audited:
    return Audited(total=1)


async def returns_base(request: Add) -> Message:
    return Total(total=1)


async def returns_object(request: Add) -> object:
    return Total(total=1)


async def returns_any(request: Add) -> Any:
    return Total(total=1)


async def returns_variable(request: T) -> T:
    return Total(total=1)  # type: ignore[return-value]


async def returns_unknown(request: Add) -> "Unknown":  # type: ignore[name-defined]  # noqa: F821
    return Total(total=1)


async def returns_note(request: Add) -> Annotated[Total, "a note"]:
    return Total(total=1)


async def returns_protocol(request: Add) -> SupportsInt:
    return Total(total=1)  # type: ignore[return-value]


async def returns_without_annotation(request: Add):  # type: ignore[no-untyped-def]  # noqa: ANN201
    return Total(total=1)


def as_total(function: Callable[[Add], Awaitable[int]]) -> Any:
    @functools.wraps(function)
    async def wrapper(request: Add) -> Total:
        return Total(total=await function(request))

    return wrapper


@pytest.mark.parametrize(
    "handler",
    [
        returns_maybe,
        returns_subclass,
        returns_base,
        returns_object,
        returns_any,
        returns_variable,
        returns_unknown,
        returns_note,
        returns_protocol,
        returns_without_annotation,
        as_total(returns_number),
    ],
)
def test_a_handler_whose_annotated_result_can_be_the_reply_is_accepted(handler: Any) -> None:
    assert total_of(handler) == 1


async def never_returns(request: Add) -> NoReturn:
    raise LookupError


def test_a_handler_that_never_returns_is_accepted() -> None:
    Router("ledger").request(Add)(never_returns)


# --- wrappers ---


async def add(request: Add, context: Context) -> Total:
    return Total(total=request.amount + len(context.state))


@pytest.mark.parametrize(
    "handler",
    [
        passing_on(add),
        sync_passing_on(add),
        sync_passing_on(passing_on(add)),
        passing_on(sync_passing_on(add)),
        sync_passing_on(Ledger(Router("ledger"), base=0).add),
        functools.partial(sync_passing_on(add)),
        Counting(add),
        sync_passing_on(Counting(add)),
    ],
)
def test_a_wrapper_of_a_coroutine_function_is_a_handler(handler: Any) -> None:
    assert total_of(handler) == 7


def with_length(function: Callable[[Add, int], Awaitable[Total]]) -> Any:
    """Pass the length of the state instead of the context, which the wrapper takes itself."""

    @functools.wraps(function, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
    async def wrapper(request: Add, context: Context) -> Total:
        return await function(request, len(context.state))

    return wrapper


def with_lost_annotations(function: Callable[[Add, int], Awaitable[Total]]) -> Any:
    @functools.wraps(function)
    async def wrapper(request: Add, context: Context) -> Total:
        return await function(request, len(context.state))

    return wrapper


def with_first_parameter(function: Callable[..., Awaitable[Total]]) -> Any:
    @functools.wraps(function)
    async def wrapper(message: Add, *args: Any, **kwargs: Any) -> Total:
        return await function(message, *args, **kwargs)

    return wrapper


def without_wraps(function: Callable[..., Awaitable[Total]]) -> Any:
    async def wrapper(*args: Any, **kwargs: Any) -> Total:
        return await function(*args, **kwargs)

    return wrapper


async def add_length(request: Add, length: int) -> Total:
    return Total(total=request.amount + length)


async def add_number(request: Add, *, number: Annotated[int, Depends(opened)]) -> Total:
    return Total(total=request.amount + number)


def test_the_parameters_of_a_wrapper_itself_count() -> None:
    assert total_of(with_length(add_length)) == 7
    assert total_of(with_first_parameter(add)) == 7
    assert total_of(with_first_parameter(add_number)) == 42


def test_a_wrapper_without_the_annotations_of_its_parameters_is_refused() -> None:
    text = refusal(with_lost_annotations(add_length))
    assert "the required parameter 'context' has no annotation" in text
    assert "functools.wraps has replaced the annotations of this wrapper" in text


def test_a_wrapper_that_hides_the_parameters_is_refused() -> None:
    assert "If the function wraps another function, use functools.wraps." in refusal(
        without_wraps(add)
    )


def test_a_plain_function_that_wraps_a_plain_function_is_refused() -> None:
    def plain(request: Add) -> Total:
        return Total(total=1)

    assert "is not a coroutine function" in refusal(sync_passing_on(plain))  # type: ignore[arg-type]


@virtual
async def test_a_wrapper_that_returns_no_coroutine_is_at_fault_itself() -> None:
    @functools.wraps(add)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return Total(total=1)

    router = Router("ledger")
    router.request(Add)(wrapper)
    with pytest.raises(Internal, match="returned Total, not a coroutine"):
        await answered(router)
