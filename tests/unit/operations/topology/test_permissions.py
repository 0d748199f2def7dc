import json
import os
import re
from pathlib import Path

import pytest

from bus.cli import main
from bus.contracts.contract import Contract, contract_of
from bus.errors import ConfigurationError
from bus.messaging.topology.control import CONTROL_EXCHANGE
from bus.messaging.topology.declarations import BASE_EXCHANGES
from bus.operations.topology.permissions import (
    ADMINISTRATOR,
    BrokerUser,
    broker_users,
    check_consume_grants,
    permissions,
    users,
)
from bus.operations.topology.user_passwords import password_hash, read_passwords
from bus.runtime.router import Router
from bus.security.grants import Grants, ServiceGrants
from tests.unit.ledger import Add, BooksClosed, CloseBooks, GetTotal

CONTRACTS: list[Contract] = [
    contract_of(model) for model in (Add, GetTotal, CloseBooks, BooksClosed)
]
GRANTS = Grants(
    {
        "ledger": ServiceGrants(publish=frozenset({contract_of(BooksClosed).permission})),
        "office": ServiceGrants(
            call=frozenset({contract_of(Add).permission}),
            consume=frozenset({contract_of(BooksClosed).permission}),
        ),
        "guest": ServiceGrants(),
        "auditor": ServiceGrants(control=frozenset({"read"})),
        "clerk": ServiceGrants(call=frozenset({contract_of(CloseBooks).permission})),
        "watcher": ServiceGrants(jobs=frozenset({"read:ledger.close"})),
    }
)
ROOT = Path(__file__).parents[4]


def _user(name: str) -> BrokerUser:
    return next(user for user in broker_users(GRANTS, CONTRACTS, ["ledger"]) if user.name == name)


def _fits(pattern: str, name: str) -> bool:
    """Match as RabbitMQ does: an empty pattern matches only an empty name."""
    return re.search(pattern or "^$", name) is not None


@pytest.mark.parametrize(
    ("user", "exchange", "key"),
    [
        ("office", "bus.requests", "ledger.add.v1"),
        ("ledger", "bus.events", "ledger.closed.v1"),
        ("ledger", "bus.replies", "office.replies.host-1-abc"),
        ("ledger", "bus.replies", "guest.replies.1"),
        ("ledger", "bus.updates", "office.replies.host.example-1"),
        ("clerk", "bus.requests", "ledger.bus-jobs.get.v1"),
        ("clerk", "bus.requests", "ledger.bus-jobs.cancel.v1"),
        ("watcher", "bus.requests", "ledger.bus-jobs.get.v1"),
        ("ledger", "ledger.return", "ledger.jobs.close.v1"),
        ("ledger", "bus.dead", "ledger.jobs.close.v1"),
        ("office", "bus.dead", "office.events.ledger.closed.v1"),
        ("office", "bus.control", "announce.office"),
        ("office", "bus.control", "answer.ledger.host.example-1-abc"),
        ("office", "bus.control", "answer.bus.host-1-abc"),
        ("office", "bus.control", "ask.service.ledger"),
        ("auditor", "bus.control", "ask.all"),
        ("auditor", "bus.control", "ask.instance.ledger.host-1-abc"),
    ],
)
def test_a_service_may_publish_what_it_needs(user: str, exchange: str, key: str) -> None:
    held = _user(user)
    assert _fits(held.write, exchange)
    assert exchange not in held.keys or _fits(held.keys[exchange].write, key)


@pytest.mark.parametrize(
    ("user", "exchange", "key"),
    [
        ("office", "bus.requests", "ledger.bus-jobs.get.v1"),
        ("clerk", "ledger.return", "ledger.jobs.close.v1"),
        ("office", "bus.requests", "ledger.total.v1"),
        ("office", "bus.requests", "ledger.add.v2"),
        ("office", "bus.requests", "ledgerXadd.v1"),
        ("office", "bus.requests", "#"),
        ("office", "bus.jobs", "ledger.close.v1"),
        ("office", "bus.events", "ledger.closed.v1"),
        ("office", "bus.replies", "ledger.replies.1"),
        ("office", "bus.dead", "ledger.jobs.close.v1"),
        ("office", "office.replies.1", ""),
        ("ledger", "bus.replies", "ledger.replies.1"),
        ("ledger", "bus.replies", "stranger.replies.1"),
        ("ledger", "bus.replies", "office.jobs.1"),
        ("ledger", "amq.default", "office.events.ledger.closed.v1"),
        ("guest", "bus.requests", "ledger.add.v1"),
        ("guest", "bus.dead", "guest.jobs.1"),
        ("office", "bus.control", "announce.ledger"),
        ("office", "bus.control", "ask.all"),
        ("office", "bus.control", "ask.service.guest"),
        ("office", "bus.control", "ask.instance.ledger.host-1-abc"),
        ("guest", "bus.control", "ask.service.ledger"),
        ("auditor", "bus.control", "announce.ledger"),
    ],
)
def test_a_service_may_publish_nothing_else(user: str, exchange: str, key: str) -> None:
    held = _user(user)
    assert not (
        _fits(held.write, exchange)
        and (exchange not in held.keys or _fits(held.keys[exchange].write, key))
    )


def test_a_service_reads_its_own_queues_and_binds_its_own_replies_only() -> None:
    office = _user("office")
    for queue in (
        "office.events.ledger.closed.v1",
        "office.events.ledger.closed.v1.dead",
        "amq.gen-Abc_1-x",
    ):
        assert _fits(office.read, queue)
    for name in (
        "ledger.jobs.close.v1",
        "bus.requests",
        "bus.jobs",
        "bus.events",
        "bus.dead",
        "office.retry.1s",
        "officer.jobs.x.v1",
    ):
        assert not _fits(office.read, name)
    assert [name for name, keys in office.keys.items() if keys.read] == [
        "bus.replies",
        "bus.updates",
        "bus.control",
    ]
    assert _fits(office.keys["bus.replies"].read, "office.replies.1")
    for key in ("ledger.replies.1", "office.replies.#", "#", "*.replies.1"):
        assert not _fits(office.keys["bus.replies"].read, key)


@pytest.mark.parametrize(
    ("user", "key", "is_allowed"),
    [
        ("office", "ask.all", True),
        ("office", "ask.service.office", True),
        ("office", "ask.instance.office.host-1-abc", True),
        ("office", "answer.office.host.example-1-abc", True),
        ("office", "ask.service.ledger", False),
        ("office", "ask.instance.ledger.1", False),
        ("office", "answer.ledger.1", False),
        ("office", "answer.bus.1", False),
        ("office", "announce.*", False),
        ("office", "announce.ledger", False),
        ("auditor", "announce.*", True),
        ("auditor", "announce.#", False),
        *(
            (user, key, False)
            for user in ("office", "auditor")
            for key in ("#", "*.#", "answer.#", "answer.*.1", "answer.office.#", "ask.#", "ask.*.*")
        ),
    ],
)
def test_a_service_binds_its_own_keys_of_the_control_channel_only(
    user: str, key: str, is_allowed: bool
) -> None:
    assert _fits(_user(user).read, "bus.control")
    assert _fits(_user(user).keys["bus.control"].read, key) == is_allowed


@pytest.mark.parametrize(
    "name", ["office.replies.1", "office.jobs.x.v1", "bus.requests", "amq.topic", "x.amq.gen-1"]
)
def test_a_service_declares_nothing_that_has_a_name(name: str) -> None:
    assert not _fits(_user("office").configure, name)


def test_every_exchange_of_the_bus_has_its_keys_since_one_without_would_take_any() -> None:
    exchanges = (BASE_EXCHANGES | CONTROL_EXCHANGE).exchanges
    written = permissions([_user("guest")], vhost="/")["topic_permissions"]
    assert {each["exchange"] for each in written} == {each.name for each in exchanges}
    assert {each.kind for each in exchanges} == {"topic"}


def test_a_subscription_without_its_grant_is_refused() -> None:
    router = Router("guest")

    @router.event(BooksClosed)
    async def on_closed(_event: BooksClosed) -> None:
        """Do nothing."""

    with pytest.raises(
        ConfigurationError,
        match=r"service 'guest' subscribes to ledger\.\S+ without a grant\. "
        r"Add '\S+' to services\.guest\.consume\.",
    ):
        check_consume_grants(router.name, router.contracts, GRANTS)


# --- Passwords ------------------------------------------------------------------------------------


def test_a_password_is_hashed_as_rabbitmqs_documentation_does() -> None:
    assert (
        password_hash("test12", salt=bytes.fromhex("908DC60A"))
        == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    )
    assert password_hash("test12") != password_hash("test12"), "each hash has its own salt"


def test_every_user_has_a_password_and_every_password_a_user() -> None:
    office = [_user("office")]
    with pytest.raises(
        ConfigurationError, match=r"the password of bus\.topology, office is not set\."
    ):
        users(office, {})
    with pytest.raises(
        ConfigurationError,
        match="the password of office is not set; the passwords name unknown users: 'ofice'",
    ):
        users(office, {ADMINISTRATOR: "a", "ofice": "b"})
    with pytest.raises(
        ConfigurationError,
        match=r"the passwords name an unknown user: 'ofice'; did you mean 'office'\?",
    ):
        users(office, {ADMINISTRATOR: "a", "office": "b", "ofice": "c"})
    made = users(office, {ADMINISTRATOR: "a", "office": "b"})
    assert [(each["name"], each["tags"]) for each in made] == [
        (ADMINISTRATOR, ["management"]),
        ("office", []),
    ]
    assert {each["password_hash"] for each in users(office, None)} == {""}, (
        "an empty hash allows no login"
    )


def test_a_file_of_passwords_that_others_may_read_is_refused_and_nothing_of_it_is_shown(
    tmp_path: Path,
) -> None:
    path = tmp_path / "passwords.toml"
    path.write_text('office = "hunter2"\n')
    path.chmod(0o640)
    with pytest.raises(
        ConfigurationError,
        match=rf"^{path} has mode 640\. Only its owner .*: run `chmod 600 {path}`\.$",
    ):
        read_passwords(path)
    path.chmod(0o600)
    assert read_passwords(path) == {"office": "hunter2"}
    for wrong in (
        "office = 7",
        'office = ""',
        '[office]\npassword = "hunter2"',
        "office = hunter2",
    ):
        path.write_text(wrong)
        with pytest.raises(ConfigurationError) as told:
            read_passwords(path)
        assert "hunter2" not in str(told.value)
    with pytest.raises(ConfigurationError, match=r"none\.toml cannot be read: No such file"):
        read_passwords(tmp_path / "none.toml")
    path.write_bytes('office = "hunter2\xff"'.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"is not UTF-8 text, ") as told:
        read_passwords(path)
    assert "hunter2" not in str(told.value)


# --- The command ----------------------------------------------------------------------------------


def _bus(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(
            (
                "topology",
                "definitions",
                "workers.documents:router",
                "--contracts",
                "contracts",
                *arguments,
            )
        )
    return ended.value.code


def test_the_command_prints_definitions_with_users(capsys: pytest.CaptureFixture[str]) -> None:
    assert not _bus("--grants", str(ROOT / "grants.toml"), "--certificates", "--vhost", "clinic")
    told = json.loads(capsys.readouterr().out)
    assert {each["name"] for each in told["users"]} == {
        ADMINISTRATOR,
        "demo",
        "documentation",
        "transcription",
    }
    assert {each["vhost"] for each in told["permissions"]} == {"clinic"}
    requests = [each for each in told["queues"] if ".requests." in each["name"]]
    assert requests
    assert not any("x-expires" in each["arguments"] for each in requests), (
        "the services may not create them again"
    )


def test_without_passwords_the_users_are_left_to_the_operator(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert not _bus("--grants", str(ROOT / "grants.toml"))
    shown = capsys.readouterr()
    assert "users" not in json.loads(shown.out)
    assert (
        "these users must exist before the import: bus.topology, demo, documentation, transcription"
        in shown.err
    )


def test_passwords_and_certificates_exclude_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        _bus(
            "--grants",
            str(ROOT / "grants.toml"),
            "--certificates",
            "--passwords",
            str(tmp_path / "none"),
        )
        == os.EX_DATAERR
    )
    assert "have no password" in capsys.readouterr().err
