"""Tests of serializers whose loss only a long text, a large number or a list shows."""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    StringConstraints,
    create_model,
    field_serializer,
    model_serializer,
)

from bus.contracts.contract import Catalog, Event, contract
from bus.errors import ContractError


def declare(model: type[Event]) -> None:
    contract("ledger.checked", version=1, catalog=Catalog())(model)


def having(kind: Any) -> type[Event]:
    return create_model("Checked", __base__=Event, field=(kind, ...))


def masked(text: str) -> str:
    return text if len(text) < 6 else f"{text[:2]}***"


def masked_address(text: str) -> str:
    return text.replace(text.partition("@")[0], "***") if "@" in text else text


@pytest.mark.parametrize(
    ("kind", "serializer"),
    [
        (str, masked),
        (str, masked_address),
        (str, str.lower),
        (str, str.strip),
        (str | None, lambda text: text and masked(text)),
        (Annotated[str, Field(max_length=14)], masked),
        (int, abs),
        (int, lambda number: min(number, 1000)),
        (list[int], sorted),
        (list[str], lambda values: values[:3]),
        (timedelta, lambda value: value.seconds),
    ],
)
def test_a_serializer_that_alters_some_values_is_refused(
    kind: Any, serializer: Callable[[Any], Any]
) -> None:
    with pytest.raises(ContractError, match="`field` does not arrive as it was sent"):
        declare(having(Annotated[kind, PlainSerializer(serializer)]))


def test_a_field_serializer_that_alters_some_values_is_refused() -> None:
    class Guest(Event):
        name: str
        phone: str = "1"

        @field_serializer("phone")
        def hide(self, phone: str) -> str:
            return masked(phone)

    with pytest.raises(ContractError, match="the field `phone` does not arrive as it was sent"):
        declare(Guest)


class Sparse(Event):
    """Event that does not send None."""

    @model_serializer(mode="wrap")
    def drop(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


def test_a_serializer_that_leaves_none_out_is_refused_if_none_is_not_the_default() -> None:
    class Guest(Sparse):
        name: str
        phone: str | None = "unknown"

    with pytest.raises(ContractError, match="the message does not arrive as it was sent"):
        declare(Guest)


def test_a_serializer_that_leaves_none_out_is_accepted_if_none_is_the_default() -> None:
    class Guest(Sparse):
        name: str
        phone: str | None = None
        pages: int | None = None

    declare(Guest)


@pytest.mark.parametrize(
    "kind",
    [
        Annotated[str, BeforeValidator(str.strip), PlainSerializer(str.strip)],
        Annotated[str, StringConstraints(to_lower=True), PlainSerializer(str.lower)],
        Annotated[str, Field(max_length=5), PlainSerializer(masked)],
        Annotated[float, PlainSerializer(lambda value: round(value, 2))],
        Annotated[float, PlainSerializer(round)],
        Annotated[Decimal, PlainSerializer(lambda value: f"{value:.2f}")],
        Annotated[datetime, PlainSerializer(lambda at: at.isoformat(timespec="seconds"))],
        Annotated[timedelta, PlainSerializer(lambda value: int(value.total_seconds()))],
        Annotated[set[str], PlainSerializer(sorted)],
        Annotated[list[str], PlainSerializer(tuple)],
        Annotated[Path, PlainSerializer(str)],
        Annotated[int, Field(ge=0), PlainSerializer(abs)],
        Annotated[int, PlainSerializer(str)],
        Annotated[dict[str, list[int]], PlainSerializer(dict)],
    ],
)
def test_a_serializer_that_keeps_each_accepted_value_is_accepted(kind: Any) -> None:
    declare(having(kind))
