import traceback
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from bus.contracts.contract import (
    Catalog,
    Event,
    Job,
    Message,
    Request,
    contract,
    contract_of,
    decode,
    encode,
)
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import ContractError, ContractViolation, Unavailable
from tests.unit.ledger import Add, BooksClosed, Clear, CloseBooks, GetTotal, Total

_LATER: Any = "Later"
_NUMBER: Any = int
SECRET = "Eleonora Quist"  # no error's text may contain it


class Visit(Message):
    ward: int


def _refuse(value: str) -> str:
    raise ValueError(f"{value} is not one of ours")


def _refuse_by_name(value: str) -> str:
    raise PydanticCustomError(
        "Eleonora Quist", "who is {who}", {"who": value}
    )  # the value is in the type, the template and the context


class Chart(Message):
    age: int = 0
    visits: dict[str, Visit] = Field(default_factory=dict)
    checked: Annotated[str, AfterValidator(_refuse)] = ""
    named: Annotated[str, AfterValidator(_refuse_by_name)] = ""
    either: int | Visit | None = None


class Strict(Message):
    model_config = ConfigDict(extra="forbid")
    age: int = 0


class Callback(Message):
    call: Callable[[], None] | None = None
    age: int


@pytest.mark.parametrize(
    "name",
    [
        "total",
        "Ledger.total",
        "ledger.",
        ".total",
        "ledger..total",
        "ledger.to tal",
        "ledger.1",
        "l" * 99 + ".x",
    ],
)
def test_a_contract_needs_a_name_of_service_and_operation(name: str) -> None:
    with pytest.raises(ContractError, match=r"is not a valid (contract|service) name"):
        contract(name, version=1, catalog=Catalog())(_event())


@pytest.mark.parametrize("name", ["ledger.v2", "ledger.v1.total"])
def test_a_name_with_a_version_in_it_is_refused(name: str) -> None:
    with pytest.raises(ContractError, match="version="):
        contract(name, version=1, catalog=Catalog())(_event())


@pytest.mark.parametrize("version", [0, -1, 10_000])
def test_versions_start_at_one_and_end(version: int) -> None:
    with pytest.raises(ContractError, match=f"not {version}"):
        contract("ledger.total", version=version, catalog=Catalog())(_event())


def test_the_names_of_the_bus_are_its_own() -> None:
    with pytest.raises(ContractError, match="the bus reserves it"):
        contract("bus.error", version=1, catalog=Catalog())(_event())


def test_the_kind_comes_from_the_class() -> None:
    assert [contract_of(model).kind for model in (Add, CloseBooks, BooksClosed)] == [
        "request",
        "job",
        "event",
    ]


def test_a_contract_knows_its_parts() -> None:
    declared = contract_of(GetTotal)
    assert (declared.type, declared.service, declared.operation) == (
        "ledger.total.v1",
        "ledger",
        "total",
    )
    assert (
        declared.reply,
        declared.idempotent,
        contract_of(Clear).reply,
        contract_of(BooksClosed).reply,
    ) == (Total, True, None, None)


def test_a_type_declared_twice_names_both_classes() -> None:
    catalog = Catalog()

    class First(Event): ...

    class Second(Event): ...

    contract("ledger.moved", version=1, catalog=catalog)(First)
    with pytest.raises(ContractError, match=r"First and by .*Second"):
        contract("ledger.moved", version=1, catalog=catalog)(Second)
    contract("ledger.moved", version=2, catalog=catalog)(Second)
    assert [each.version for each in catalog] == [1, 2]


def test_a_class_has_one_contract() -> None:
    model = contract("ledger.moved", version=1, catalog=Catalog())(_event())
    with pytest.raises(ContractError, match=r"ledger\.moved\.v1 and as ledger\.moved\.v2"):
        contract("ledger.moved", version=2, catalog=Catalog())(model)


def test_a_contract_says_how_its_handlers_are_retried_and_a_request_does_not() -> None:
    policy = RetryPolicy(delays=(5,))
    moved = contract("ledger.moved", version=1, retry=policy, catalog=Catalog())(_event())
    assert contract_of(moved).retry is policy

    class Ask(Request[Total]):
        pass

    with pytest.raises(ContractError, match="Only its caller can retry it"):
        contract("ledger.ask", version=1, retry=policy, catalog=Catalog())(Ask)


def test_a_class_of_two_kinds_is_refused_with_the_names_of_the_kinds() -> None:
    class Both(Event, Job[None]): ...

    with pytest.raises(ContractError, match=r"Both is an Event and a Job\. Derive it from one"):
        contract("ledger.both", version=1, catalog=Catalog())(Both)


def test_a_class_that_is_none_of_the_three_kinds_is_refused() -> None:
    with pytest.raises(ContractError, match="neither a Request"):
        contract("ledger.total", version=1, catalog=Catalog())(Total)


def test_an_undecorated_class_has_no_contract_and_neither_has_a_subclass() -> None:
    class Child(Add): ...

    for model in (_event(), Child):
        with pytest.raises(ContractError, match="Decorate it"):
            contract_of(model)


@pytest.mark.parametrize(
    "base",
    [Request, Job, Request[_LATER], Job[_NUMBER], Request["Total"]],
    ids=["bare", "bare job", "later", "an int", "a string"],
)
def test_a_reply_type_that_is_not_resolved_is_refused(base: type[Message]) -> None:
    model = type("Ask", (base,), {"__module__": __name__})
    with pytest.raises(ContractError, match=r"is not a Message class|does not specify"):
        contract("ledger.ask", version=1, catalog=Catalog())(model)


@pytest.mark.parametrize(
    "body", [b"null", b" null\n", b"{}"], ids=["null", "null and spaces", "empty object"]
)
@pytest.mark.parametrize("model", [Clear, Chart], ids=["no fields", "defaults"])
def test_a_class_without_required_fields_accepts_a_body_without_content(
    model: type[Message], body: bytes
) -> None:
    assert decode(model, body) == model()


def test_a_class_with_a_required_field_refuses_a_body_without_content() -> None:
    with pytest.raises(ContractViolation, match=r"^Total: the payload must be an object\.$"):
        decode(Total, b"null")


def test_an_event_without_fields_is_sent_as_before() -> None:
    assert encode(Clear()) == b"{}"


def test_none_travels_as_null() -> None:
    assert encode(None) == b"null"
    assert decode(None, b"null") is None


def test_a_message_comes_back_as_it_was_and_ignores_what_is_new() -> None:
    assert decode(Total, encode(Total(total=3))) == Total(total=3)
    assert decode(Total, b'{"total": 3, "since": "v2"}') == Total(total=3)


def test_a_message_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Total(total=1).total = 2


def test_what_a_subclass_adds_stays_here() -> None:
    class Audited(Total):
        auditor: str = SECRET

    assert encode(Audited(total=1), Total) == b'{"total":1}'


@pytest.mark.parametrize(
    ("model", "body", "text"),
    [
        (Chart, f'{{"age": "{SECRET}"}}', "Chart: age: must be an integer."),
        (
            Chart,
            f'{{"visits": {{"{SECRET}": {{"ward": "x"}}}}}}',
            "Chart: visits[*].ward: must be an integer.",
        ),
        (Chart, f'{{"visits": {{"{SECRET}": 7}}}}', "Chart: visits[*]: must be an object."),
        (
            Chart,
            f'{{"checked": "{SECRET}"}}',
            "Chart: checked: is not accepted by the validator _refuse.",
        ),
        (
            Chart,
            f'{{"named": "{SECRET}"}}',
            "Chart: named: is not accepted by the validator _refuse_by_name.",
        ),
        (Chart, f'{{"either": "{SECRET}"}}', "Chart: either: must be an integer or an object."),
        (Chart, f'{{"age": "{SECRET}', "Chart: the payload is not valid JSON (line 1 column 23)."),
        (Chart, f'["{SECRET}"]', "Chart: the payload must be an object."),
        (
            Strict,
            f'{{"{SECRET}": 1}}',
            "Strict: unknown field, whose name is not shown (known fields: age).",
        ),
        (Callback, f'{{"age": "{SECRET}"}}', "Callback: age: must be an integer."),
    ],
)
def test_a_violation_names_fields_and_rules_and_no_values(
    model: type[Message], body: str, text: str
) -> None:
    with pytest.raises(ContractViolation) as caught:
        decode(model, body.encode())
    assert str(caught.value) == text
    assert caught.value.__context__ is None


def test_a_violation_shows_the_first_faults_and_counts_the_rest() -> None:
    class Many(Message):
        numbers: list[int]

    with pytest.raises(ContractViolation, match=r"numbers\[4\]: must be an integer; and 3 more\.$"):
        decode(Many, b'{"numbers": ["a","a","a","a","a","a","a","a"]}')


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe", b"", b"[" * 100_000, b'{"age": NaN}', b'{"age": 1e999}', b'{"age": "\\ud800"}'],
)
def test_any_bytes_are_a_violation_at_worst(body: bytes) -> None:
    with pytest.raises(ContractViolation):
        decode(Chart, body)


@pytest.mark.parametrize(
    "message", [Total.model_construct(total=SECRET), Chart.model_construct(checked="\ud800")]
)
def test_what_does_not_fit_is_not_sent_and_not_shown(message: Message) -> None:
    with pytest.raises(
        ContractViolation, match=r"the field `.*` has a value that does not"
    ) as caught:
        encode(message)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        *(("name", wrong) for wrong in (3, None, b"names.wrong")),
        *(("version", wrong) for wrong in (True, "1", 1.0, None)),
        *(("permission", wrong) for wrong in (3, b"read")),
        *((option, wrong) for option in ("idempotent", "encrypted") for wrong in ("no", 1, None)),
        *(("retry", wrong) for wrong in (3, None, {"attempts": 3}, RetryPolicy)),
        *(("criticality", wrong) for wrong in (None, 3, "", "important", "critical+", "CRITICAL")),
        *(("cache", wrong) for wrong in ("60", True, b"60")),
    ],
)
def test_an_option_of_a_contract_that_has_a_wrong_type_is_refused_by_name(
    option: str, wrong: Any
) -> None:
    options: Any = {"name": "names.wrong", "version": 1, option: wrong}
    with pytest.raises(ContractError, match=rf"Anything: {option} must be .*Write {option}="):
        contract(**options, catalog=Catalog())(_event())


def test_a_contract_is_critical_and_has_no_cache_by_default() -> None:
    declared = contract_of(GetTotal)
    assert (declared.criticality, declared.cache) == ("critical", None)


def test_a_contract_states_its_criticality_and_the_seconds_of_its_cache() -> None:
    class Ask(Request[Total]): ...

    contract(
        "ledger.ask",
        version=1,
        idempotent=True,
        criticality="sheddable_plus",
        cache=2.5,
        catalog=Catalog(),
    )(Ask)
    assert (contract_of(Ask).criticality, contract_of(Ask).cache) == ("sheddable_plus", 2.5)


def test_a_misspelt_criticality_gets_all_valid_ones() -> None:
    wrong: Any = "shedable"
    valid = "'critical_plus', 'critical', 'sheddable_plus', 'sheddable'"
    with pytest.raises(ContractError, match=rf"one of {valid}\. Write criticality='sheddable'"):
        contract("names.wrong", version=1, criticality=wrong, catalog=Catalog())(_event())


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 86_400.5, 10**400])
def test_the_seconds_of_a_cache_are_more_than_none_and_at_most_a_day(seconds: float) -> None:
    class Ask(Request[Total]): ...

    with pytest.raises(ContractError, match=r"Ask: cache must be a number of seconds above 0"):
        contract("ledger.ask", version=1, idempotent=True, cache=seconds, catalog=Catalog())(Ask)


def test_only_a_request_has_a_cache() -> None:
    with pytest.raises(ContractError, match=r"is an event\. .*Leave out cache="):
        contract("names.wrong", version=1, idempotent=True, cache=60, catalog=Catalog())(_event())


def test_a_request_with_a_cache_must_be_idempotent() -> None:
    class Ask(Request[Total]): ...

    with pytest.raises(ContractError, match=r"Ask: cache is set.*Add idempotent=True"):
        contract("ledger.ask", version=1, cache=60, catalog=Catalog())(Ask)


def broken(error: Exception) -> type[Message]:
    """Return a class whose validator raises `error`."""

    class Broken(Message):
        name: str

        @field_validator("name")
        @classmethod
        def _look(cls, name: str) -> str:
            raise error

    return Broken


@pytest.mark.parametrize(
    "error",
    [KeyError(SECRET), AttributeError(SECRET), IndexError(), OSError(SECRET), RecursionError()],
    ids=repr,
)
def test_a_validator_that_raises_another_error_makes_the_message_invalid(error: Exception) -> None:
    with pytest.raises(ContractViolation) as caught:
        decode(broken(error), f'{{"name": "{SECRET}"}}'.encode())
    assert f"Broken: a validator raised {type(error).__name__}," in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_place_where_a_validator_failed_can_be_found() -> None:
    with pytest.raises(ContractViolation) as caught:
        decode(broken(KeyError("a")), b'{"name": "a"}')
    assert isinstance(caught.value.__cause__, KeyError)
    where = traceback.extract_tb(caught.value.__cause__.__traceback__)[-1]
    assert (where.filename, where.name) == (__file__, "_look")


def test_an_error_of_the_bus_that_a_validator_raises_passes_as_it_is() -> None:
    with pytest.raises(Unavailable, match="no answer"):
        decode(broken(Unavailable("no answer")), b'{"name": "a"}')


def test_a_validators_own_error_passes_as_it_is_when_the_message_is_made() -> None:
    make: Any = broken(KeyError("a"))
    with pytest.raises(KeyError):
        make(name="a")


def _event() -> type[Event]:
    class Anything(Event): ...

    return Anything


@pytest.mark.parametrize(
    ("decorated", "text"),
    [
        (3, "the decorated object has the type int, but @contract declares a class"),
        (len, "builtins.len has the type builtin_function_or_method, but @contract declares"),
        (int, "builtins.int is neither a Request, nor an Event, nor a Job"),
    ],
)
def test_a_contract_of_something_else_than_a_class_of_messages_is_refused(
    decorated: Any, text: str
) -> None:
    with pytest.raises(ContractError, match=f"^{text}"):
        contract("shop.x", version=1)(decorated)


def test_a_catalog_of_another_type_is_refused() -> None:
    class Sold(Event):
        pass

    catalog: Any = None
    with pytest.raises(ContractError, match="catalog must be a Catalog, not a value of type None"):
        contract("shop.sold", version=1, catalog=catalog)(Sold)
