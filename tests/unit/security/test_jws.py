"""Strict base64url decoding of tokens: only one text for each value is accepted."""

from base64 import urlsafe_b64encode
from itertools import product
from string import ascii_letters, digits

import pytest

from bus.errors import Unauthenticated
from bus.security.jws import _bytes

ALPHABET = ascii_letters + digits + "-_"
"""The 64 characters of base64url (RFC 4648, 5)."""


def canonical(data: bytes) -> str:
    """Return the text of a standard encoder, without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def accepted(text: str) -> bytes | None:
    """Return the decoded bytes, or None if the text is rejected."""
    try:
        return _bytes(text, "it")
    except Unauthenticated:
        return None


@pytest.mark.parametrize(
    ("head", "ends"),
    [
        ("", [bytes([end]) for end in range(256)]),
        ("Q", [bytes(end) for end in product(range(0x40, 0x44), range(256))]),
    ],
    ids=["one byte is over", "two bytes are over"],
)
def test_of_all_ends_of_base64_only_those_that_an_encoder_writes_are_read(
    head: str, ends: list[bytes]
) -> None:
    written = {canonical(end): end for end in ends}
    for tail in product(ALPHABET, repeat=2):
        text = head + "".join(tail)
        assert accepted(text) == written.get(text), text


@pytest.mark.parametrize("size", range(9))
def test_what_an_encoder_writes_is_read(size: int) -> None:
    data = bytes(range(250, 250 - size, -1))
    assert accepted(canonical(data)) == data


@pytest.mark.parametrize("text", ["Q", "QUJDR"])
def test_a_length_that_no_encoder_writes_is_refused(text: str) -> None:
    assert accepted(text) is None
