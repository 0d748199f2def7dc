"""The durable store in SQLite or PostgreSQL, by SQLAlchemy.

Only this package imports SQLAlchemy, Alembic and the drivers. It is imported only if the setting
`store` names a database.
"""
