"""The texts of the errors of a database."""

from bus.storage.sqlalchemy.database import error_from


def test_an_address_without_a_database_says_which_setting_to_check() -> None:
    error = error_from(ConnectionRefusedError(111, "a value"), "postgresql://db:5432/shelf")
    assert str(error) == (
        "the store postgresql://db:5432/shelf: it cannot be reached (ECONNREFUSED). "
        "Check the host and the port in BUS_STORE, and that the database server runs."
    )
