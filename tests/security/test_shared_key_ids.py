"""Key sets in which several keys have one id, by mistake or by intent."""

import json
from pathlib import Path
from typing import Any

import pytest

from bus.cli import main
from bus.contracts.contract import contract_of
from bus.errors import Unauthenticated
from bus.security.endpoint_guard import EndpointGuard
from bus.security.key_directory import KeyDirectory
from bus.security.key_set import MAX_KEYS_PER_ID, read_key_set
from bus.security.keyring import Keyring
from bus.security.signer import Signer
from tests.security.world import World
from tests.security.yard import NOW, Yard
from tests.unit.fakes import virtual
from tests.unit.ledger import Add, CloseBooks

Jwk = dict[str, Any]


def published(owner: str, kid: str, **members: Any) -> Jwk:
    """Return a new public key of the owner."""
    yard = Yard()
    yard.key(owner, kid, **members)
    return yard.public[kid]


def gate(world: World, jwks: list[Jwk], model: Any) -> EndpointGuard:
    """Return the ledger's guard, with this key set."""

    async def source() -> bytes:
        return json.dumps({"keys": jwks}).encode()

    ring = Keyring("ledger", source, list, clock=world.yard.clock, timer=world.yard.clock)
    ring._keys = read_key_set(json.dumps({"keys": jwks})).keys
    return EndpointGuard(contract_of(model), world.yard.verifier("ledger", ring))


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("role", ["request", "job"])
@virtual
async def test_a_key_that_another_service_publishes_under_my_id_does_not_knock_out_mine(
    role: str, is_first: bool
) -> None:
    world = await World.started()
    others = [published("mail", "office-1"), *world.yard.public.values()]
    jwks = others if is_first else others[::-1]
    if role == "request":
        assert gate(world, jwks, Add).authorize(world.request()) is None
    else:
        assert gate(world, jwks, CloseBooks).authorize(world.job()) is None


@virtual
async def test_the_other_service_with_my_id_keeps_its_key_too_and_cannot_speak_for_me() -> None:
    world = await World.started()
    contract = contract_of(CloseBooks)
    world.yard.grant("mail", call=(contract,))
    genuine = world.yard.public["office-1"]
    private = world.yard.key("mail", "office-1")
    mails_key = world.yard.public["office-1"]
    jwks = [mails_key, genuine]
    guard = gate(world, jwks, CloseBooks)
    mails = await _ring(world, [mails_key], "mail", private)
    signer = Signer("mail", mails, world.yard.current(), clock=world.yard.clock)
    job = world.job("mail", reply_to=None).replace(proof=None)
    assert guard.authorize(signer.sign(job)) is None
    for forged in (
        signer.sign(job.replace(source="office")),
        signer.sign(job).replace(source="office"),
    ):
        assert isinstance(guard.authorize(forged), Unauthenticated)
    assert guard.authorize(world.job()) is None


async def _ring(world: World, jwks: list[Jwk], owner: str, private: Any) -> Keyring:
    async def source() -> bytes:
        return json.dumps({"keys": jwks}).encode()

    ring = Keyring(owner, source, lambda: [private], clock=world.yard.clock, timer=world.yard.clock)
    await ring.start()
    return ring


@virtual
async def test_another_services_copy_of_my_key_that_says_it_is_revoked_changes_nothing_for_me() -> (
    None
):
    world = await World.started()
    copy = {**world.yard.public["office-1"], "iss": "mail", "compromised_since": 0}
    jwks = [copy, *world.yard.public.values(), copy]
    assert gate(world, jwks, CloseBooks).authorize(world.job()) is None


@virtual
async def test_two_keys_that_one_service_published_under_one_id_both_count() -> None:
    world = await World.started()
    jwks = [published("office", "office-1"), *world.yard.public.values()]
    assert gate(world, jwks, CloseBooks).authorize(world.job()) is None


@virtual
async def test_of_one_key_that_is_in_the_set_twice_the_revocation_counts() -> None:
    world = await World.started()
    office = world.yard.public["office-1"]
    for jwks in ([office, {**office, "compromised_since": 0}],) * 2:
        for order in (jwks, jwks[::-1]):
            error = gate(world, order, CloseBooks).authorize(world.job())
            assert str(error) == "the signing key is compromised"


def test_the_stricter_times_of_two_entries_count() -> None:
    key = published("office", "office-1", not_before=NOW, retired_at=NOW + 20)
    other = {**key, "not_before": NOW - 5, "retired_at": NOW + 10, "compromised_since": NOW + 7}
    (combined,) = read_key_set(json.dumps({"keys": [key, other]})).keys["office-1"]
    assert combined.not_before == NOW
    assert combined.retired_at == NOW + 10
    assert combined.compromised_since == NOW + 7


@pytest.mark.parametrize("is_first", [True, False])
def test_a_copy_of_a_revoked_key_under_another_id_is_revoked_too_and_the_log_can_name_both(
    is_first: bool,
) -> None:
    key = published("office", "office-1")
    others = [{**key, "iss": "mail", "kid": "mail-1"}, published("office", "office-2")]
    jwks = [{**key, "compromised_since": 7}, {**key, "kid": "copy"}, *others]
    key_set = read_key_set(json.dumps({"keys": jwks if is_first else jwks[::-1]}))
    since = {kid: key.compromised_since for kid, (key,) in key_set.keys.items()}
    assert since == {"office-1": 7, "copy": 7, "mail-1": None, "office-2": None}
    (warning,) = key_set.copies
    assert warning == (
        "the service office has one key under the ids copy and office-1. "
        "A revocation of one counts for all of them. Remove the entries that nothing uses."
    )


def test_a_key_that_got_another_id_signs_under_it_after_the_old_id_is_retired() -> None:
    key = published("office", "office-1")
    jwks = [{**key, "retired_at": NOW}, {**key, "kid": "office-2"}]
    (renamed,) = read_key_set(json.dumps({"keys": jwks})).keys["office-2"]
    assert renamed.retired_at is None


@virtual
async def test_the_log_warns_of_one_key_under_two_ids(caplog: pytest.LogCaptureFixture) -> None:
    world = await World.started()
    jwks = [*world.yard.public.values(), {**world.yard.public["office-1"], "kid": "copy"}]
    await _ring(world, jwks, "office", world.key("office"))
    (record,) = caplog.records
    assert "one key under the ids copy and office-1" in record.getMessage()


def test_the_list_of_keys_warns_of_one_key_under_two_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = KeyDirectory(tmp_path)
    keys.new("office", "office-1")
    (key,) = keys.public()
    keys.set_file.write_text(json.dumps({"keys": [key, {**key, "kid": "copy"}]}))
    assert run("list", tmp_path) == 0
    assert "warning: the service office has one key under the ids" in capsys.readouterr().err
    assert run("jwks", tmp_path) == 0


def test_the_keys_of_one_owner_under_one_id_are_limited_and_do_not_limit_those_of_others() -> None:
    many = [published("mail", "office-1") for _ in range(MAX_KEYS_PER_ID + 3)]
    key_set = read_key_set(json.dumps({"keys": [*many, published("office", "office-1")]}))
    owners = [key.owner for key in key_set.keys["office-1"]]
    assert owners == ["mail"] * MAX_KEYS_PER_ID + ["office"]
    assert len(key_set.faults) == 3
    assert "mail already has 4 keys with the id office-1" in key_set.faults[0]


@virtual
async def test_a_token_whose_id_has_keys_of_others_only_costs_no_check_of_a_signature() -> None:
    world = await World.started()
    jwks = [published("mail", "office-1"), published("desk", "office-1")]
    guard = gate(world, jwks, CloseBooks)
    keys = guard._verifier._ring.get("office-1")
    assert len(keys) == 2
    assert str(guard.authorize(world.job())) == "the signing key does not belong to the issuer"


@pytest.mark.parametrize("name", ["iss", "kid"])
def test_a_key_with_a_doubled_member_is_ignored_because_programs_disagree_about_it(
    name: str,
) -> None:
    text = json.dumps({"keys": [published("office", "office-1"), published("mail", "mail-1")]})
    value = "office" if name == "iss" else "office-1"
    doubled = text.replace(f'"{name}": "{value}"', f'"{name}": "mail", "{name}": "{value}"')
    assert doubled != text
    key_set = read_key_set(doubled)
    assert [*key_set.keys] == ["mail-1"]
    assert "has a duplicate name" in key_set.faults[0]


@virtual
async def test_the_log_names_the_id_and_the_owners(caplog: pytest.LogCaptureFixture) -> None:
    world = await World.started()
    jwks = [published("mail", "office-1"), *world.yard.public.values()]
    await _ring(world, jwks, "office", world.key("office"))
    (record,) = caplog.records
    assert record.getMessage() == (
        "BUS_JWKS: 2 keys have the id office-1; they belong to the service mail and the service "
        "office. Give each key its own id."
    )


def test_the_commands_show_a_shared_id_and_a_revocation_misses_no_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = KeyDirectory(tmp_path)
    keys.new("office", "office-1")
    keys.new("mail", "office-1")
    assert run("jwks", tmp_path) != 0
    assert "2 keys have the id office-1" in capsys.readouterr().err
    assert run("list", tmp_path, "--json") == 0
    assert [row["shares_id"] for row in json.loads(capsys.readouterr().out)] == [True, True]
    assert run("list", tmp_path) == 0
    assert "another key has this id" in " ".join(capsys.readouterr().out.split())
    assert run("revoke", tmp_path, "office-1") == 0
    assert [each["compromised_since"] for each in keys.public()] == [0, 0]


def run(command: str, directory: Path, *arguments: str) -> object:
    """Run a command of `bus keys`, and return the exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["keys", command, *arguments, "--directory", str(directory)])
    return ended.value.code
