"""Payload encryption: only the services with a key can read a payload, and only in its message."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from bus import Job, Message, contract
from bus.cli import main
from bus.contracts.contract import Catalog
from bus.errors import ConfigurationError, FailedPrecondition, Unavailable, Undecodable
from bus.messaging.envelope import Envelope, reply
from bus.security.encryption import ENCRYPTION, PayloadCipher
from bus.security.jwe import new_encryption_key, read_encryption_keys

CATALOG = Catalog()
SECRET = "Ada Lovelace, born 1815-12-10"


class Letter(Message):
    text: str


@contract("post.deliver", version=1, encrypted=True, catalog=CATALOG)
class Deliver(Job[Letter]):
    text: str


@contract("post.count", version=1, catalog=CATALOG)
class Count(Job[None]):
    pass


OLD, NEW, FOREIGN = (new_encryption_key(kid) for kid in ("old", "new", "foreign"))


def cipher(*keys: dict[str, str], everything: bool = False) -> PayloadCipher:
    ring = read_encryption_keys(json.dumps({"keys": keys})) if keys else None
    return PayloadCipher(ring, everything=everything, catalog=CATALOG)


def letter(**changes: Any) -> Envelope:
    message = Envelope(
        id="id-1",
        type="post.deliver.v1",
        role="job",
        source="office",
        body=json.dumps({"text": SECRET}).encode(),
        correlation_id="visit-1",
        headers={"mine": "kept"},
    )
    return message.replace(**changes)


def test_an_encrypted_payload_is_json_that_hides_it_and_decrypts_to_it() -> None:
    sealed = cipher(NEW).encrypt(letter())

    assert json.loads(sealed.body).keys() == {
        "protected",
        "iv",
        "ciphertext",
        "tag",
        "aad",
        "encrypted_key",
    }
    assert b"Ada" not in sealed.body
    assert sealed.headers == {"mine": "kept", ENCRYPTION: "jwe"}
    assert cipher(NEW).decrypt(sealed) == letter()


def test_no_two_messages_share_a_data_key_or_a_nonce() -> None:
    sealed = [json.loads(cipher(NEW).encrypt(letter()).body) for _ in range(100)]
    for member in ("iv", "encrypted_key", "ciphertext", "tag"):
        assert len({each[member] for each in sealed}) == 100


def test_a_retry_and_a_dead_letter_open_too() -> None:
    sealed = cipher(NEW).encrypt(letter())
    assert (
        cipher(NEW)
        .decrypt(sealed.replace(attempt=3, headers={**sealed.headers, "dead-code": "internal"}))
        .body
        == letter().body
    )


def test_a_key_that_no_longer_encrypts_still_decrypts() -> None:
    assert cipher(NEW, OLD).decrypt(cipher(OLD).encrypt(letter())).body == letter().body
    assert _kid(cipher(NEW, OLD).encrypt(letter())) == "new"


def test_a_key_that_is_not_here_yet_is_no_reason_to_give_a_message_up() -> None:
    with pytest.raises(Unavailable, match="BUS_ENCRYPTION_KEYS"):
        cipher(NEW).decrypt(cipher(FOREIGN).encrypt(letter()))
    with pytest.raises(Unavailable):
        cipher().decrypt(cipher(NEW).encrypt(letter()))


@pytest.mark.parametrize("changed", ["id", "type", "source", "correlation_id", "in_reply_to"])
def test_a_payload_opens_in_its_own_message_only(changed: str) -> None:
    sealed = cipher(NEW, everything=True).encrypt(letter())
    with pytest.raises(Undecodable, match="payload was not encrypted for this message"):
        cipher(NEW, everything=True).decrypt(sealed.replace(**{changed: "another"}))


@pytest.mark.parametrize("member", ["protected", "iv", "ciphertext", "tag", "encrypted_key"])
def test_each_flipped_bit_of_a_sealed_payload_is_noticed(member: str) -> None:
    sealed = cipher(NEW).encrypt(letter())
    content = json.loads(sealed.body)
    raw = bytearray(base64.urlsafe_b64decode(content[member] + "=="))
    for at in range(len(raw)):
        changed = raw.copy()
        changed[at] ^= 1
        body = json.dumps(
            {**content, member: base64.urlsafe_b64encode(changed).decode().rstrip("=")}
        ).encode()
        with pytest.raises((Undecodable, Unavailable)):
            cipher(NEW).decrypt(sealed.replace(body=body))


@pytest.mark.parametrize(
    "changes",
    [
        {"recipients": []},
        {"unprotected": {"alg": "dir"}},
        {"header": {"zip": "DEF"}},
        {"header": {"crit": ["x"], "x": 1}},
        {"header": None},
        {"protected": None},
        {
            "protected": base64.urlsafe_b64encode(b'{"alg":"dir","enc":"A256GCM","kid":"new"}')
            .decode()
            .rstrip("=")
        },
        {
            "protected": base64.urlsafe_b64encode(
                b'{"alg":"A256KW","enc":"A256GCM","zip":"DEF","kid":"new"}'
            )
            .decode()
            .rstrip("=")
        },
        {"encrypted_key": ""},
        {"iv": 5},
        {"tag": ""},
        {"ciphertext": None},
    ],
)
def test_a_sealed_payload_of_another_shape_is_refused(changes: dict[str, object]) -> None:
    sealed = cipher(NEW).encrypt(letter())
    body = json.dumps(json.loads(sealed.body) | changes).encode()
    with pytest.raises((Undecodable, Unavailable)):
        cipher(NEW).decrypt(sealed.replace(body=body))


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'{"text": "plain"}', b"\xff", b"[" * 100_000]
)
def test_what_says_that_it_is_encrypted_and_is_not_is_refused(body: bytes) -> None:
    with pytest.raises((Undecodable, Unavailable)):
        cipher(NEW).decrypt(letter(body=body, headers={ENCRYPTION: "jwe"}))
    with pytest.raises(Undecodable):
        cipher(NEW).decrypt(letter(body=body, headers={ENCRYPTION: "rot13"}))


def test_what_has_to_be_encrypted_and_came_plain_is_refused_whether_or_not_there_are_keys() -> None:
    for mine in (cipher(NEW), cipher()):
        with pytest.raises(Undecodable, match="arrived unencrypted, but must be encrypted"):
            mine.decrypt(letter())


def test_what_has_to_be_encrypted_does_not_leave_without_a_key() -> None:
    with pytest.raises(FailedPrecondition, match="BUS_ENCRYPTION_KEYS"):
        cipher().encrypt(letter())


def test_replies_and_progress_are_encrypted_as_their_contract_and_error_replies_never() -> None:
    mine = cipher(NEW)
    answer = reply(letter(), Letter(text=SECRET), source="post")
    assert mine.is_encrypted("post.deliver.v1.progress")
    assert not mine.is_encrypted("bus.error.v1")
    assert b"Ada" not in mine.encrypt(answer).body
    assert mine.decrypt(mine.encrypt(answer)).body == answer.body


def test_other_contracts_go_plain_unless_everything_is_encrypted() -> None:
    count = letter(type="post.count.v1")
    assert cipher(NEW).encrypt(count) is count
    assert cipher(NEW).decrypt(count) is count
    assert b"Ada" not in cipher(NEW, everything=True).encrypt(count).body
    with pytest.raises(Undecodable):
        cipher(NEW, everything=True).decrypt(count)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "BUS_ENCRYPTION_KEYS is not a JSON Web Key Set"),
        ("[]", "BUS_ENCRYPTION_KEYS is not a JSON Web Key Set"),
        ('{"keys": [{"kty": "RSA"}]}', "BUS_ENCRYPTION_KEYS is not a JSON Web Key Set"),
        ('{"keys": []}', "BUS_ENCRYPTION_KEYS has no key"),
        (json.dumps({"keys": [NEW, NEW]}), "without a unique kid"),
        (
            json.dumps({"keys": [{k: v for k, v in NEW.items() if k != "kid"}]}),
            "without a unique kid",
        ),
        (
            json.dumps({"keys": [{"kty": "oct", "kid": "short", "k": "c2VjcmV0LXNlY3JldA"}]}),
            "short has 104 bits",
        ),
    ],
)
def test_a_ring_that_is_none_says_what_to_write_and_shows_no_key(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        read_encryption_keys(text)
    assert NEW["k"] not in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)


def test_what_could_not_be_opened_leaves_nothing_of_keys_or_payload_in_the_error() -> None:
    sealed = cipher(NEW).encrypt(letter())
    for broken in (sealed.replace(id="x"), sealed.replace(body=sealed.body[:-9])):
        with pytest.raises(Undecodable) as caught:
            cipher(NEW).decrypt(broken)
        assert caught.value.__cause__ is caught.value.__context__ is None


def _kid(sealed: Envelope) -> str:
    protected = json.loads(base64.urlsafe_b64decode(json.loads(sealed.body)["protected"] + "=="))
    return str(protected["kid"])


def test_the_rings_keys_are_data_for_people_and_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ((), ("--add",), ("--json",)):
        with pytest.raises(SystemExit) as ended:
            main(["keys", "ring", "--directory", str(tmp_path), *arguments])
        assert not ended.value.code
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "encrypts and decrypts",
        "encrypts and decrypts",
        "decrypts",
    ]
    assert [each["encrypts"] for each in json.loads(last)] == [True, False]
