"""Durable jobs while PostgreSQL is stopped and started again."""

import asyncio

from bus import Bus, Job, Message, Router, Settings, contract
from bus.contracts.contract import Catalog
from bus.operations.brokers.broker import Broker
from tests.integration.ledger import Place
from tests.integration.store.test_open import create
from tests.polling import until
from tests.postgres import PostgresCluster

catalog = Catalog()


class Stored(Message):
    """Result of a job."""

    number: int


@contract("silo.store", version=1, catalog=catalog)
class Store(Job[Stored]):
    """A job of the service with a store."""

    number: int


async def test_no_job_is_lost_while_postgresql_is_away_and_the_service_recovers_by_itself(
    shared_broker: Broker, vhost_url: str, private_postgres: PostgresCluster
) -> None:
    place, runs = Place(shared_broker, vhost_url), list[int]()
    url = private_postgres.create_database()
    await create(url, "silo")
    router, running, end = Router("silo"), asyncio.Event(), asyncio.Event()

    @router.job(Store, concurrency=5)
    async def store(job: Store) -> Stored:
        runs.append(job.number)
        if job.number == 0:
            running.set()
            await end.wait()
        return Stored(number=job.number)

    settings = Settings(
        **{**place.settings.model_dump(exclude_unset=True), "store": url, "auth": "off"}
    )
    async with (
        Bus("silo", settings=settings) as silo,
        Bus("farm", settings=place.settings) as farm,
        silo.serving(router),
    ):
        first = await farm.submit(Store(number=0))
        await running.wait()
        await asyncio.to_thread(private_postgres.kill)
        handles = [await farm.submit(Store(number=each)) for each in range(1, 20)]
        end.set()  # the handler ends while its store is away
        await until(lambda: not silo.ready, "a service that is not ready")
        await asyncio.sleep(1)
        assert runs == [0]
        private_postgres.start()  # the server ends with the thread that starts it
        assert (await first.result(timeout=60)).number == 0
        results = [(await handle.result(timeout=60)).number for handle in handles]
        assert results == list(range(1, 20))
        assert sorted(runs) == list(range(20))
        assert silo.ready
