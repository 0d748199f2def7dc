"""Tests of the errors that callers of the transport receive."""

import pytest

from bus.transports.rabbitmq.exceptions import to_bus_error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Exception(), "declaring: the connection was closed"),
        (Exception("Eleonora Quist"), "declaring: Exception"),
        (ValueError(), "declaring: ValueError"),
    ],
)
def test_an_exception_without_a_class_and_text_is_the_end_of_the_connection(
    error: Exception, text: str
) -> None:
    assert str(to_bus_error(error, "declaring")) == text
