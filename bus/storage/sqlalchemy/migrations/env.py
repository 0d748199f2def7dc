"""The environment that Alembic runs. `upgrade` passes the connection, inside its transaction."""

from alembic import context

from bus.storage.sqlalchemy.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    # SQLite, too: the engine begins its transactions itself.
    transactional_ddl=True,
)
context.run_migrations()
