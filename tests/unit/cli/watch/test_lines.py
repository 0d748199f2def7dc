"""Tests of the lines, the JSON and the signatures of watched messages."""

import json
import os
import re
import threading
import time

import pytest
import typer
from typer.testing import CliRunner

from bus.cli import audit, build
from bus.cli.errors import Reporter
from bus.cli.watch.commands import pattern, select_kinds
from bus.cli.watch.lines import Seen, header_lines, line, to_json
from bus.cli.watch.printer import Printer
from bus.cli.watch.signatures import KeySetCheck, NoKeys
from bus.messaging.envelope import Envelope
from bus.security.keyring import shared_secret_keyring
from bus.security.proofs import message_proof
from bus.security.tokens import service_token

SECRET = "a secret of at least thirty-two bytes"
NOW = time.time()
JOB = Envelope(
    id="1bca7969-65da-4741-9053-a6d7357cb8dc",
    type="library.scan.v1",
    role="job",
    source="shop",
    body=b'{"title": "Emma"}',
    correlation_id="8f3c0c5e-7a42-4f0e-8a55-6cf3a1f1c2de",
    expires=int(NOW * 1000) + 60_000,
    received=int(NOW * 1000),
    headers={"tenant": "north", "note": "line\nend\x1b[2J"},
)
RING = shared_secret_keyring("shop", SECRET)


def signed(envelope: Envelope, by: str = "shop") -> Envelope:
    pair = RING.signing_key()
    if envelope.role == "request":
        token = service_token(
            pair, issuer=by, audience="library", scope="library.find", now=NOW, jti=lambda: "1"
        )
        return envelope.replace(authorization=f"Bearer {token}")
    return envelope.replace(proof=message_proof(pair, envelope.replace(source=by), now=NOW))


def seen(envelope: Envelope = JOB, body: bytes | None = None) -> Seen:
    return Seen(envelope=envelope, size=2048, signature="verified", body=body)


def test_a_line_has_the_ids_the_size_and_the_signature() -> None:
    assert re.sub(r"^(\S+ )?\d\d:\d\d:\d\d\.\d{3}", "TIME", line(seen())) == (
        "TIME  job      library.scan.v1                   from shop          id 1bca7969  "
        "correlation 8f3c0c5e  2.0 KiB, verified"
    )


def test_the_names_of_a_sender_cannot_forge_a_line() -> None:
    forged = JOB.replace(type="a\n12:00:00 job", source="x\x1b[2J", id="i\n")
    assert "\n" not in line(seen(forged))
    assert "\x1b" not in "".join((line(seen(forged)), *header_lines(seen(forged))))


def test_neither_a_token_nor_a_proof_is_shown() -> None:
    for envelope in (signed(JOB), signed(JOB.replace(role="request"))):
        shown = "\n".join(header_lines(seen(envelope))) + json.dumps(to_json(seen(envelope)))
        for hidden in (envelope.proof, envelope.authorization):
            assert hidden is None or hidden not in shown
    assert "tenant: north" in "\n".join(header_lines(seen()))


def test_a_payload_is_part_of_json_only_if_it_is_revealed() -> None:
    assert "body" not in to_json(seen())
    assert to_json(seen(body=b"{}"))["body"] == "e30="


@pytest.mark.parametrize(
    ("envelope", "result"),
    [
        (JOB, "unsigned"),
        (signed(JOB), "verified"),
        (signed(JOB).replace(body=b"{}"), "invalid (the claim dig"),
        (signed(JOB, by="ida"), "invalid (the claim iss"),
        (signed(JOB).replace(unread_bytes=10**7, body=b""), "unverified (large)"),
        (signed(JOB.replace(expires=int(NOW * 1000) - 1)), "verified (expired)"),
        (signed(JOB.replace(role="request")), "verified"),
        (signed(JOB.replace(role="request"), by="ida"), "invalid (app_id is not"),
        (signed(JOB.replace(role="request", type="stock.x.v1")), "invalid (the token is for"),
    ],
)
def test_the_signature_is_checked_with_the_keys(envelope: Envelope, result: str) -> None:
    assert KeySetCheck(RING, leeway=30)(envelope).startswith(result)


class EmptyKeys:
    """A key set that was read before the key of the sender was added."""

    algorithms = RING.algorithms

    def get(self, _kid: str) -> tuple[()]:
        return ()


@pytest.mark.parametrize("envelope", [signed(JOB), signed(JOB.replace(role="request"))])
def test_a_signature_with_a_new_key_is_unverified_and_not_invalid(envelope: Envelope) -> None:
    assert KeySetCheck(EmptyKeys(), leeway=30)(envelope) == "unverified (unknown key)"


def test_without_keys_a_signature_is_unverified() -> None:
    assert [NoKeys()(signed(JOB)), NoKeys()(JOB)] == ["unverified", "unsigned"]


@pytest.mark.parametrize("text", ["#", "library.#", "*.scanned.v1", "library.find.v1", "a-b._c.#"])
def test_a_topic_pattern_is_accepted(text: str) -> None:
    assert pattern(text) == text


@pytest.mark.parametrize("text", ["", "library.", "lib*.v1", "a b.#", "x" * 256, "é.#"])
def test_another_text_is_not_a_topic_pattern(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="not a topic pattern"):
        pattern(text)


def test_a_pattern_that_matches_no_type_is_refused_with_one_that_does() -> None:
    with pytest.raises(typer.BadParameter, match=r"Write 'library\.#' in quotes"):
        pattern("library")


def test_an_unknown_kind_is_refused() -> None:
    assert select_kinds([]) == ("request", "event")
    assert select_kinds(["event"]) == ("event",)
    with pytest.raises(typer.BadParameter, match="'reply' is not a kind"):
        select_kinds(["reply"])


def test_jobs_cannot_be_watched_because_the_watch_could_be_their_only_receiver() -> None:
    with pytest.raises(typer.BadParameter, match=r"jobs cannot be watched.*bus trace"):
        select_kinds(["event", "job"])


@pytest.mark.parametrize("name", ["Authorization", "PROOF", "x-api-token", "Set-Cookie"])
def test_a_header_with_a_secret_is_not_shown_in_any_letter_case(name: str) -> None:
    message = seen(JOB.replace(headers={name: "Bearer eyJhbGciOi", "tenant": "north"}))
    assert "eyJ" not in "".join(header_lines(message))
    assert to_json(message)["headers"].keys() >= {"tenant"}
    assert name not in to_json(message)["headers"]


def test_a_slow_terminal_drops_the_oldest_lines_and_counts_them() -> None:
    released, shown = threading.Event(), list[int]()

    def show(number: int) -> None:
        released.wait(10)
        shown.append(number)

    printer = Printer(show, limit=3)
    for number in range(10):
        printer.add(number)
    released.set()
    printer.close()
    assert shown[-3:] == [7, 8, 9]
    assert len(shown) + printer.dropped == 10


def test_a_closed_pipe_ends_the_printer() -> None:
    def show(_number: int) -> None:
        raise BrokenPipeError

    printer = Printer(show)
    printer.add(1)
    printer.close()
    printer.add(2)


def test_payloads_are_refused_without_an_operators_key_before_the_broker_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit, "begin_audit", lambda _: None)  # it would change all loggers
    app = build(["watch"], Reporter(debug=False))
    environment = {"BUS_AUTH": "on", "BUS_URL": "amqp://127.0.0.1:1"}
    result = CliRunner().invoke(app, ["watch", "--reveal"], env=environment)
    assert result.exit_code == os.EX_CONFIG
    assert "requires an operator's key" in result.output
