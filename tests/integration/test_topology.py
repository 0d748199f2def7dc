"""Tests of `bus topology` on a real broker, and of the checks of a service at its start."""

import json
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

import pytest
from pamqp.common import FieldTable
from pydantic import SecretStr

from bus import Bus, ConfigurationError, Settings, TopologyMismatch
from bus.operations.brokers.broker import Broker
from bus.operations.topology.apply import apply, plan
from bus.operations.topology.verify import verify_by_amqp
from bus.runtime.requirements import required_by
from bus.testing.rabbitmq import with_vhost
from tests.integration.command import bus
from tests.integration.ledger import DEAD, REQUESTS, TIER, WORK, Close, Open, Place, router

ROUTER = "tests.integration.ledger:router"


@pytest.fixture
def place(shared_broker: Broker, vhost_url: str) -> Place:
    return Place(shared_broker, vhost_url)


async def test_apply_makes_what_plan_misses_and_running_it_again_does_nothing(place: Place) -> None:
    wanted = required_by([router], place.settings)
    before = await plan(wanted, place.settings)
    done = await apply(wanted, place.settings)
    again = await apply(wanted, place.settings)

    assert not before.clean
    assert done.before == before
    assert (done.after.differences, again.before.differences) == ((), ())


async def test_what_apply_makes_is_what_a_service_declares(place: Place) -> None:
    await apply(required_by([router], place.settings), place.settings)
    async with Bus("books", settings=place.settings) as service, service.serving(router):
        assert service.ready
        assert (await plan(required_by([router], place.settings), place.settings)).differences == ()


SPOILT: Mapping[str, dict[str, str | int | None]] = {
    "no dead-letter exchange": {"x-dead-letter-exchange": None, "x-dead-letter-routing-key": None},
    "no strategy": {"x-dead-letter-strategy": None},
    "at most once": {"x-dead-letter-strategy": "at-most-once"},
    "no reject-publish": {"x-overflow": None},
    "a length limit": {"x-max-length": 10},
    "no delivery limit": {"x-delivery-limit": None},
    "a low delivery limit": {"x-delivery-limit": 2},
}


async def declared(place: Place, name: str, arguments: Mapping[str, str | int | None]) -> None:
    """Declare a queue with the right arguments, except for these."""
    right = dict(required_by([router], place.settings).queue(name).arguments)
    mixed: FieldTable = {
        key: value for key, value in {**right, **arguments}.items() if value is not None
    }
    connection = await place.connect()
    async with connection, connection.channel() as channel:
        await channel.declare_queue(name, durable=True, arguments=mixed)


async def test_a_service_is_not_started_on_a_queue_with_other_arguments_and_the_argument_is_named(
    place: Place,
) -> None:
    connection = await place.connect()
    async with connection:
        for arguments in SPOILT.values():
            await declared(place, WORK, arguments)
            argument = next(iter(arguments))
            async with Bus("books", settings=place.settings) as service:
                with pytest.raises(TopologyMismatch, match=argument):
                    async with service.serving(router):
                        pass
            found = (await plan(required_by([router], place.settings), place.settings)).having(
                "different"
            )
            assert [each.name for each in found] == [WORK] * len(arguments)
            assert argument in found[0].detail
            async with connection.channel() as channel:
                await channel.queue_delete(WORK)


POLICIES: Mapping[str, tuple[str, dict[str, object]]] = {
    "the delivery limit is 2, below the 3 attempts": (WORK, {"delivery-limit": 2}),
    "a policy sets max-length to 10": (WORK, {"max-length": 10}),
    "a policy sets expires to 100000": (WORK, {"expires": 100_000}),
    "a policy sets message-ttl to 500": (TIER, {"message-ttl": 500}),
    "a policy sets message-ttl to 9000": (DEAD, {"message-ttl": 9000}),
}


async def test_a_service_is_not_started_where_a_policy_would_lose_messages_and_the_queue_is_named(
    place: Place,
) -> None:
    await apply(required_by([router], place.settings), place.settings)
    async with Bus("books", settings=place.settings) as service:
        for said, (queue, definition) in POLICIES.items():
            await place.policy(queue, definition)
            with pytest.raises(ConfigurationError, match=f"unsafe queue {queue}: {said}"):
                async with service.serving(router):
                    pass
        await place.no_policy()
        async with service.serving(router):
            assert service.ready


async def test_without_the_management_api_policies_stop_nobody(place: Place) -> None:
    await apply(required_by([router], place.settings), place.settings)
    await place.policy(WORK, {"max-length": 10})
    for settings in (
        place.settings.model_copy(update={"management_url": None}),
        at(place, "http://127.0.0.1:1"),
    ):
        async with Bus("books", settings=settings) as service, service.serving(router):
            assert service.ready


def at(place: Place, management_url: str) -> Settings:
    return place.settings.model_copy(update={"management_url": SecretStr(management_url)})


# --- Brokers that an administrator manages ---


async def verifying(place: Place) -> Settings:
    """Return the settings of a service that may declare only its own reply queue."""
    user, parts = f"{place.vhost}-books", urlsplit(place.url)
    await place.api.call("PUT", f"users/{user}", {"password": "secret", "tags": ""})
    own = r"^amq\.gen-.*"
    rights = {
        "configure": own,
        "write": rf"^bus\..*|^books\.retry\..*|{own}",
        "read": rf"^books\..*|^bus\.(replies|updates)$|{own}",
    }
    await place.api.call("PUT", f"permissions/{place.vhost}/{user}", rights)
    url = urlunsplit(parts._replace(netloc=f"{user}:secret@{parts.netloc.rpartition('@')[2]}"))
    return Settings(url=SecretStr(url), topology="verify")


async def test_a_service_without_rights_to_declare_serves_what_others_have_made(
    place: Place,
) -> None:
    settings = await verifying(place)
    try:
        administrator = place.settings.model_copy(update={"topology": "verify"})
        await apply(required_by([router], administrator), administrator)
        async with (
            Bus("books", settings=settings) as service,
            service.serving(router),
            Bus("office", settings=administrator) as caller,
        ):
            await caller.request(Open(), timeout=40)
            await (await caller.submit(Close())).result(timeout=40)
        assert (await verify_by_amqp(required_by([router], settings), settings)).clean
        queues = await place.api.call("GET", f"queues/{place.vhost}?disable_stats=true")
        assert {each["name"]: each["arguments"].get("x-expires") for each in queues}[
            REQUESTS
        ] is None
    finally:
        await place.api.call("DELETE", f"users/{place.vhost}-books")


async def test_with_verify_what_is_missing_is_named_at_the_start_and_nothing_is_made(
    place: Place,
) -> None:
    settings = place.settings.model_copy(update={"topology": "verify"})
    with pytest.raises(
        ConfigurationError,
        match=r"the broker has no exchange bus\.requests, no exchange bus\.jobs.*"
        "bus topology export",
    ):
        async with Bus("books", settings=settings):
            pass
    await apply(required_by([], settings), settings)
    async with Bus("books", settings=settings) as service:
        with pytest.raises(
            ConfigurationError,
            match=rf"no exchange books\.return.*no queue {REQUESTS}.*no queue {WORK}",
        ):
            async with service.serving(router):
                pass
    queues = await place.api.call("GET", f"queues/{place.vhost}?disable_stats=true")
    assert [each for each in queues if not each["exclusive"]] == [], (
        "a queue for replies goes with its connection, a moment after it"
    )


async def test_with_verify_a_missing_binding_is_named_where_the_management_api_tells_it(
    place: Place,
) -> None:
    settings = place.settings.model_copy(update={"topology": "verify"})
    await apply(required_by([router], settings), settings)
    connection = await place.connect()
    async with connection, connection.channel() as channel:
        queue = await channel.get_queue(DEAD)
        await queue.unbind("bus.dead", WORK)
    async with Bus("books", settings=settings) as service:
        with pytest.raises(ConfigurationError, match=f"missing binding bus.dead -> {DEAD}"):
            async with service.serving(router):
                pass


# --- The command ---


async def test_the_command_plans_applies_and_verifies(place: Place) -> None:
    planned = await bus("topology", "plan", ROUTER, **place.environment)
    assert (planned.code, planned.err) == (2, "")
    assert f"missing queue {WORK}: quorum" in planned.out.splitlines()

    applied = await bus("topology", "apply", ROUTER, **place.environment)
    assert (applied.code, applied.out) == (0, "")
    assert f"created queue {WORK}" in applied.err

    verified = await bus("topology", "verify", ROUTER, "--json", **place.environment)
    assert (verified.code, json.loads(verified.out)) == (
        0,
        {"clean": True, "differences": [], "unseen": []},
    )


async def test_apply_names_migrate_for_what_cannot_be_changed_in_place(place: Place) -> None:
    await declared(place, WORK, {"x-delivery-limit": 2})
    applied = await bus("topology", "apply", ROUTER, **place.environment)
    assert applied.code == 2
    assert applied.out.startswith(f"different queue {WORK}: x-delivery-limit is 2, needed 100")
    assert f"bus topology migrate {ROUTER} {WORK}" in applied.err


async def test_a_management_api_that_is_not_there_is_told_in_a_line(place: Place) -> None:
    planned = await bus(
        "topology", "plan", ROUTER, "--management-url", "http://127.0.0.1:1", **place.environment
    )
    assert planned.code == 69
    assert len(planned.err.splitlines()) == 1
    assert "Set BUS_MANAGEMENT_URL to the address of the API." in planned.err


async def test_the_export_is_all_that_a_broker_needs_which_has_not_even_the_virtual_host(
    shared_broker: Broker,
) -> None:
    vhost = f"exported-{secrets.token_hex(6)}"
    place = Place(shared_broker, with_vhost(shared_broker.url, vhost))
    printed = await bus("topology", "export", ROUTER, "--vhost", vhost)
    assert printed.code == 0, printed.err
    await place.api.call("POST", "definitions", json.loads(printed.out))
    try:
        assert vhost in {each["name"] for each in await place.api.call("GET", "vhosts")}
        # This gives the test's user permissions, which an export does not contain.
        await place.api.add_vhost(vhost)
        assert (await plan(required_by([router], place.settings), place.settings)).differences == ()
    finally:
        await place.api.delete_vhost(vhost)
