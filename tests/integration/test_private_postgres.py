"""The private PostgreSQL cluster of the tests."""

from tests.postgres import PostgresCluster


def test_each_test_gets_an_empty_database(postgres: PostgresCluster) -> None:
    first, second = postgres.create_database(), postgres.create_database()
    postgres.execute("CREATE TABLE books (id int)", first.rpartition("/")[2])
    assert postgres.execute("SELECT to_regclass('books')", second.rpartition("/")[2]) == ""


def test_a_killed_cluster_keeps_what_was_committed(private_postgres: PostgresCluster) -> None:
    private_postgres.execute("CREATE TABLE books AS SELECT 7 AS id")
    private_postgres.kill()
    assert not private_postgres.is_running
    private_postgres.start()
    assert private_postgres.execute("SELECT id FROM books") == "7"
    private_postgres.execute("DROP TABLE books")
