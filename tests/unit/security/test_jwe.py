"""Encrypted payloads of other implementations and of older versions of the bus."""

import json
import tracemalloc
from typing import Any, cast

import pytest
from joserfc import jwe, jwk

from bus.errors import ConfigurationError
from bus.security.encryption import DecryptionFailed, UnknownEncryptionKey
from bus.security.jwe import JweKeys, new_encryption_key, read_encryption_keys
from tests.jwe_by_hand import b64, open_sealed, seal, unb64

KEY = new_encryption_key("ring-1")
PLAIN, AAD = b'{"text":"Ada"}', b"a digest of the message's ids ..."
OLD_KEY = {"kty": "oct", "kid": "old", "k": b64(b"0123456789abcdef0123456789abcdef")}
FROM_OLD_BUS = (
    b'{"protected":"eyJhbGciOiJBMjU2S1ciLCJlbmMiOiJBMjU2R0NNIiwia2lkIjoib2xkIn0","iv":"t2nC87Z'
    b'-AchrKuW3","ciphertext":"8aH0hjjTWkXqao8fbU8","tag":"QL1O568eVh7il9JHArlUYg","aad":"YSBk'
    b'aWdlc3Qgb2YgdGhlIG1lc3NhZ2UncyBpZHMgLi4u","header":{"kid":"old"},"encrypted_key":"1CwDHx'
    b'KNkveNDwVD6Je57n8WGSgPlwO_c_jLZGd6gOzyILjux0TZzQ"}'
)
"""A payload that version 0.1.0 wrote, with `kid` in two headers."""


def keys(*members: dict[str, str]) -> JweKeys:
    return read_encryption_keys(json.dumps({"keys": members or [KEY]}))


def protected(**changes: Any) -> str:
    header = {"alg": "A256KW", "enc": "A256GCM", "kid": "ring-1", **changes}
    return json.dumps({name: value for name, value in header.items() if value is not None})


def opened(content: dict[str, Any]) -> bytes:
    return keys().decrypt(json.dumps(content).encode(), AAD)


def old_registry() -> jwe.JWERegistry:
    return jwe.JWERegistry(algorithms=("A256KW", "A256GCM"))


def test_a_decoder_without_code_of_the_bus_reads_a_payload_and_finds_no_doubled_parameter() -> None:
    sealed = keys().encrypt(PLAIN, AAD)
    assert open_sealed(KEY, sealed, AAD) == PLAIN
    assert "header" not in json.loads(sealed)


def test_an_old_receiver_reads_the_payload_of_a_new_sender() -> None:
    key = new_encryption_key('ring é"')
    content = json.loads(keys(key).encrypt(PLAIN, AAD))
    # The version before checked this, and then let joserfc encode the header again.
    assert content.get("header", {}) in ({}, {"kid": key["kid"]})
    read = jwe.decrypt_json(
        content, jwk.OctKey.import_key(cast("Any", key)), registry=old_registry()
    )
    assert read.plaintext == PLAIN


def test_a_new_receiver_reads_the_payload_of_an_old_sender() -> None:
    old = jwe.FlattenedJSONEncryption(json.loads(protected()), PLAIN, aad=AAD)
    key = jwk.OctKey.import_key(cast("Any", KEY))
    old.add_recipient(None, key)
    content = cast("dict[str, Any]", jwe.encrypt_json(old, key, registry=old_registry()))
    assert content["header"] == {"kid": "ring-1"}
    assert opened(content) == PLAIN


def test_a_dead_letter_of_an_old_version_can_still_be_read() -> None:
    assert keys(OLD_KEY).decrypt(FROM_OLD_BUS, AAD) == PLAIN


@pytest.mark.parametrize(
    "spelling",
    [
        protected(),
        '{"kid":"ring-1","enc":"A256GCM","alg":"A256KW"}',
        '{\n  "alg": "A256KW",\n\t"enc" :"A256GCM", "kid":"ring-1" }\n',
        r'{"alg":"A256KW","enc":"A256GCM","\u006bid":"ring\u002d1"}',
        r'{"alg":"A256KW","enc":"A256GCM","kid":"ring-1","cty":"application\/json","typ":"JOSE"}',
    ],
)
def test_the_header_of_a_foreign_payload_is_authenticated_as_it_was_received(spelling: str) -> None:
    sealed = seal(KEY, PLAIN, AAD, protected=spelling)
    assert opened(sealed) == PLAIN
    assert opened({**sealed, "aad": b64(AAD), "header": {}}) == PLAIN


def test_the_aad_in_the_body_is_not_believed() -> None:
    other = b"the digest of another message ..."
    with pytest.raises(DecryptionFailed, match=r"^$"):
        opened({**seal(KEY, PLAIN, other), "aad": b64(other)})


SEALED = seal(KEY, PLAIN, AAD)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (seal(KEY, PLAIN, AAD, protected=protected(zip="DEF")), "other parameters"),
        (seal(KEY, PLAIN, AAD, protected=protected(crit=["exp"], exp=1)), "other parameters"),
        (seal(KEY, PLAIN, AAD, protected=protected(crit=["b64"], b64=False)), "other parameters"),
        (seal(KEY, PLAIN, AAD, protected=protected(jwk=OLD_KEY)), "other parameters"),
        (seal(KEY, PLAIN, AAD, protected=protected(alg="dir")), "has not the alg A256KW"),
        (seal(KEY, PLAIN, AAD, protected=protected(enc="A128GCM")), "the enc A256GCM"),
        (seal(KEY, PLAIN, AAD, protected=protected(alg=None)), "has not the alg A256KW"),
        (seal(KEY, PLAIN, AAD, protected=protected(kid=None)), "has no kid"),
        (seal(KEY, PLAIN, AAD, protected=protected(kid=["ring-1"])), "has no kid"),
        (seal(KEY, PLAIN, AAD, protected=protected(typ="x" * 1000)), "1024 characters"),
        (
            seal(KEY, PLAIN, AAD, protected=protected()[:-1] + ', "kid": "ring-1"}'),
            "header .*duplicate name",
        ),
        (
            seal(KEY, PLAIN, AAD, protected=protected()[:-1] + r', "\u006bid": "ring-1"}'),
            "header .*duplicate name",
        ),
        (
            seal(KEY, PLAIN, AAD, protected=protected(kid=None), header={"kid": "ring-1"}),
            "has no kid",
        ),
        ({**SEALED, "header": {"alg": "A256KW"}}, "header has more"),
        ({**SEALED, "header": {"kid": "ring-2"}}, "header has more"),
        ({**SEALED, "unprotected": {"kid": "ring-1"}}, "recipients or unprotected"),
        ({**SEALED, "recipients": [{"encrypted_key": "AA"}]}, "recipients or unprotected"),
        ({**SEALED, "extra": 1}, "other members"),
        ({name: value for name, value in SEALED.items() if name != "tag"}, "other members"),
        ({**SEALED, "tag": SEALED["tag"] + "=="}, "tag is not base64url without padding"),
        ({**SEALED, "iv": "+" + SEALED["iv"][1:]}, "iv is not base64url"),
        ({**SEALED, "iv": " " + SEALED["iv"][1:]}, "iv is not base64url"),
        ({**SEALED, "iv": "é" + SEALED["iv"][1:]}, "iv is not base64url"),
        ({**SEALED, "iv": 5}, "iv is not base64url"),
        ({**SEALED, "ciphertext": "A"}, "ciphertext is not canonical"),
        ({**SEALED, "tag": SEALED["tag"][:-1] + "B"}, "tag is not canonical"),
        ({**SEALED, "tag": b64(unb64(SEALED["tag"])[:-1])}, "tag has 15 bytes instead of 16"),
        ({**SEALED, "iv": b64(bytes(16))}, "iv has 16 bytes instead of 12"),
        ({**SEALED, "encrypted_key": b64(bytes(24))}, "encrypted_key has 24 bytes"),
    ],
)
def test_a_payload_that_the_page_does_not_permit_is_refused_with_its_reason(
    content: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DecryptionFailed, match=reason):
        opened(content)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(SEALED).encode()[:-1] + b', "tag": "AA"}',
        json.dumps(SEALED).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps(SEALED).encode(),
        b"[" * 100_000,
    ],
)
def test_a_body_with_a_doubled_member_or_in_another_encoding_is_refused(body: bytes) -> None:
    with pytest.raises(DecryptionFailed, match="not a JSON object, or has a duplicate name"):
        keys().decrypt(body, AAD)


@pytest.mark.parametrize("tail", [b',"x":[', b',"iv":[', b',"header":['])
def test_a_payload_with_thousands_of_values_is_refused_before_it_is_decoded(tail: bytes) -> None:
    body = json.dumps(SEALED).encode()[:-1] + tail + b"[]," * 20_000 + b"[]]}"
    tracemalloc.start()
    try:
        with pytest.raises(DecryptionFailed, match="more than 1024 commas"):
            keys().decrypt(body, AAD)
        assert tracemalloc.get_traced_memory()[1] < len(body), "no value of the body was built"
    finally:
        tracemalloc.stop()


def test_a_payload_with_hundreds_of_commas_in_its_key_id_is_read() -> None:
    key = {**KEY, "kid": "," * 700}
    sealed = keys(key).encrypt(PLAIN, AAD)
    old = json.loads(sealed) | {"header": {"kid": key["kid"]}}
    assert keys(key).decrypt(json.dumps(old).encode(), AAD) == PLAIN


def test_a_long_protected_header_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(DecryptionFailed, match="longer than 1024 characters"):
        opened({**SEALED, "protected": "=" * 1025})


def test_a_well_formed_payload_of_an_unknown_key_can_wait_for_the_key() -> None:
    with pytest.raises(UnknownEncryptionKey):
        keys(OLD_KEY).decrypt(json.dumps(SEALED).encode(), AAD)


@pytest.mark.parametrize("changes", [{"use": "sig"}, {"alg": "A128KW"}])
def test_a_key_for_another_purpose_is_refused_by_its_id(changes: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="ring-1 has another `use` or `alg`"):
        keys({**KEY, **changes})
