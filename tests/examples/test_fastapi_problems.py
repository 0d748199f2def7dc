"""Test of the page on FastAPI: the response to each error, and to a body that is not valid."""

import re
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from httpx import ASGITransport, AsyncClient
from pydantic import AfterValidator, ConfigDict, Field

from bus import BusError, Message, NotFound, Sensitive, errors
from bus.contracts.contract import decode
from tests.examples.web_page import PAGE, Pages, importable

CLASSES = [
    each
    for name in errors.__all__
    if isinstance(each := getattr(errors, name), type) and issubclass(each, BusError)
]
ROW = re.compile(r"^\| (\d{3})(?P<retry>, with `Retry-After`)? \| (`\w+`.*) \|$", re.MULTILINE)
TABLE = [
    (status, bool(retry), re.findall(r"`(\w+)`", names))
    for status, retry, names in ROW.findall(PAGE.read_text(encoding="utf-8"))
]
STATUS = {name: int(status) for status, _, names in TABLE for name in names}
RETRY_AFTER = {int(status) for status, retry, _ in TABLE if retry}
FOR_USERS = {
    errors.InvalidArgument,
    errors.NotFound,
    errors.AlreadyExists,
    errors.Aborted,
    errors.OutOfRange,
}
"""Errors with a text that a client may read. Other texts can name settings, files and grants."""
SECRET = "R-17-Emma"
"""Value that no response may repeat."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    with importable(tmp_path_factory.mktemp("page")) as pages:
        yield pages


def client_of(app: FastAPI) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app), base_url="http://web")


async def answer_to(page: Pages, error: Exception) -> Any:
    """Return the response of a route that raises this error."""
    app = FastAPI()
    app.add_exception_handler(BusError, page.problems.answer_bus_error)

    @app.get("/books/{title}")
    async def fail(title: str) -> None:
        raise error

    async with client_of(app) as client:
        return await client.get(f"/books/{SECRET}")


def test_the_table_of_the_page_names_each_public_error_once() -> None:
    named = [name for _, _, names in TABLE for name in names]
    assert sorted(named) == sorted(each.__name__ for each in CLASSES)


@pytest.mark.parametrize("kind", CLASSES)
async def test_an_error_has_the_status_in_the_table(page: Pages, kind: type[BusError]) -> None:
    response = await answer_to(page, kind("the text"))
    problem, status = response.json(), STATUS[kind.__name__]
    assert response.headers["Content-Type"] == "application/problem+json"
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, kind.code)
    assert ("Retry-After" in response.headers) == (status in RETRY_AFTER)
    assert problem["maybe_executed"] is False


@pytest.mark.parametrize("kind", CLASSES)
async def test_an_unknown_outcome_is_a_504_or_500_that_says_so(
    page: Pages, kind: type[BusError]
) -> None:
    response = await answer_to(page, kind("the text", maybe_executed=True))
    assert response.status_code == (500 if STATUS[kind.__name__] == 500 else 504)
    assert response.json()["maybe_executed"] is True
    assert "Retry-After" not in response.headers


@pytest.mark.parametrize("kind", CLASSES)
async def test_a_text_is_either_for_users_or_in_the_log(
    page: Pages, kind: type[BusError], caplog: pytest.LogCaptureFixture
) -> None:
    response = await answer_to(page, kind("see /run/keys/web.key"))
    is_shown = kind in FOR_USERS
    assert ("/run/keys" in response.text) == is_shown
    lines = [each.getMessage() for each in caplog.records if each.name == "web"]
    expected = f"GET /books/{{title}}: {kind.__name__}: see /run/keys/web.key"
    assert lines == ([] if is_shown else [expected])


async def test_an_error_of_the_application_has_the_status_of_its_base_class(page: Pages) -> None:
    class NoSuchLoan(NotFound):
        pass

    assert (await answer_to(page, NoSuchLoan())).status_code == 404


async def test_the_group_of_a_task_group_reaches_no_handler(page: Pages) -> None:
    with pytest.raises(ExceptionGroup):
        await answer_to(page, ExceptionGroup("", [NotFound()]))


def refuse(value: str) -> str:
    raise ValueError(f"{value} is not accepted")


class Card(Message):
    kind: Literal["card"]


class Ticket(Message):
    kind: Literal["ticket"]


class Body(Message):
    model_config = ConfigDict(extra="forbid")

    reader: Sensitive[Annotated[str, Field(max_length=3)]] = "R"
    weight: float = 1
    checked: Annotated[str, AfterValidator(refuse)] = "R"
    counts: dict[str, int] = {}  # noqa: RUF012 - pydantic copies it
    proof: Annotated[Card | Ticket, Field(discriminator="kind")] = Card(kind="card")
    lines: list[Card] = []  # noqa: RUF012 - pydantic copies it


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        (f'{{"reader": "{SECRET}"}}', "body.reader", "string_too_long"),
        (f'{{"weight": "{SECRET}"}}', "body.weight", "float_parsing"),
        ('{"weight": NaN}', "body.weight", "finite_number"),
        (f'{{"checked": "{SECRET}"}}', "body.checked", "value_error"),
        (f'{{"counts": {{"{SECRET}": "x"}}}}', "body.counts.*", "int_parsing"),
        (f'{{"proof": {{"kind": "{SECRET}"}}}}', "body.proof", "union_tag_invalid"),
        (f'{{"lines": [{{"kind": "{SECRET}"}}]}}', "body.lines.0.kind", "literal_error"),
        (f'{{"{SECRET}": 1}}', "body.*", "extra_forbidden"),
        (f'["{SECRET}"]', "body", "model_attributes_type"),
        (f'{{"reader": {SECRET}', "body.11", "json_invalid"),
    ],
)
async def test_a_422_names_the_field_and_the_rule_and_no_value(
    page: Pages, body: str, field: str, rule: str
) -> None:
    response = await posted(page.problems.answer_invalid, body)
    assert response.status_code == 422
    assert response.json()["errors"] == [{"field": field, "rule": rule}]
    assert not any(part in response.text for part in SECRET.split("-")[1:])


async def test_a_422_names_at_most_twenty_fields(page: Pages) -> None:
    response = await posted(page.problems.answer_invalid, '{"lines": [' + "0," * 99 + "0]}")
    assert len(response.json()["errors"]) == 20


async def test_the_answer_of_fastapi_itself_repeats_the_value_and_fails_at_nan() -> None:
    assert SECRET in (await posted(None, f'{{"reader": "{SECRET}"}}')).text
    with pytest.raises(ValueError, match="not JSON compliant"):
        await posted(None, '{"weight": NaN}')


async def posted(handler: Any, text: str) -> Any:
    """Return the response to a body, with this handler of faults or with that of FastAPI."""
    app = FastAPI()
    if handler is not None:
        app.add_exception_handler(RequestValidationError, handler)

    @app.post("/")
    async def accept(body: Body) -> None: ...

    async with client_of(app) as client:
        return await client.post("/", content=text, headers={"Content-Type": "application/json"})


def test_the_openapi_document_has_the_contracts_and_one_form_of_error(page: Pages) -> None:
    document = page.app.app.openapi()
    assert document["components"]["schemas"]["LendBook"]["properties"]["days"]["maximum"] == 28
    lend = document["paths"]["/loans"]["post"]["responses"]
    assert set(lend) == {"201", "default"}
    assert lend["201"]["content"]["application/json"]["schema"]["$ref"].endswith("/PublicLoan")
    problem = lend["default"]["content"]["application/problem+json"]["schema"]
    assert set(problem["properties"]) == set(page.problems.Problem.model_fields)


async def test_fastapi_refuses_the_text_of_a_date_in_a_strict_contract(page: Pages) -> None:
    class Strict(Message):
        model_config = ConfigDict(strict=True)

        due: date

    app = FastAPI()

    @app.post("/")
    async def accept(body: Strict) -> None: ...

    async with client_of(app) as client:
        assert (await client.post("/", json={"due": "2026-11-30"})).status_code == 422
    assert decode(Strict, b'{"due": "2026-11-30"}').due == date(2026, 11, 30)
