"""Keys: the accepted forms, their sources, their refresh, and the key directory."""

import asyncio
import json
import logging
import os
import ssl
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from typing_extensions import override

from bus.cli import main
from bus.errors import AlreadyExists, ConfigurationError, FailedPrecondition, NotFound
from bus.security.jwks_source import MAX_KEY_SET_BYTES, private_key_source, public_key_source
from bus.security.key_directory import KeyDirectory
from bus.security.key_set import read_key_set
from bus.security.keyring import Keyring
from bus.security.private_keys import dev_key, generate, read_private
from tests.integration.certificates import certificates
from tests.security.yard import NOW, Yard
from tests.unit.fakes import settle_down, virtual


def jwk(**members: Any) -> dict[str, Any]:
    yard = Yard()
    yard.key("office")
    return {
        name: value
        for name, value in {**yard.public["office-1"], **members}.items()
        if value is not None
    }


# --- Accepted keys ---


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"kid": None}, "kid must have"),
        ({"kid": "a b"}, "kid must have"),
        ({"kid": 7}, "kid must have"),
        ({"iss": None}, "iss is missing"),
        ({"iss": "Office Nr. 1"}, "is not a valid service name"),
        ({"iss": "bus"}, "the bus reserves it"),
        ({"role": "admin"}, "service or operator"),
        ({"alg": None}, "alg must be EdDSA"),
        ({"alg": "HS256"}, "alg must be EdDSA"),
        ({"kty": "RSA"}, "neither Ed25519"),
        ({"kty": "oct"}, "neither Ed25519"),
        ({"kty": ["OKP"]}, "neither Ed25519"),
        ({"crv": {"name": "Ed25519"}}, "neither Ed25519"),
        ({"crv": "Ed448"}, "neither Ed25519"),
        ({"use": "enc"}, "use must be sig"),
        ({"x": "AAAA"}, "not the coordinates of a valid key"),
        ({"x": None}, "not the coordinates of a valid key"),
        ({"d": "AAAA"}, "private"),
        ({"k": "AAAA"}, "private"),
        ({"not_before": "2026-01-01"}, "seconds since the epoch"),
        ({"retired_at": True}, "seconds since the epoch"),
        ({"compromised_since": -1}, "seconds since the epoch"),
        ({"compromised_since": 1_700_000_000_000}, "seconds since the epoch"),
        ({"compromised_since": 10**400}, "seconds since the epoch"),
        ({"not_before": float("nan")}, "seconds since the epoch"),
    ],
)
def test_what_is_no_key_does_not_count_and_does_not_hold_up_others(
    members: dict[str, Any], why: str
) -> None:
    good = jwk(kid="other-1", iss="other")
    key_set = read_key_set(json.dumps({"keys": [jwk(**members), good]}))
    assert [*key_set.keys] == ["other-1"]
    assert len(key_set.faults) == 1
    assert why in key_set.faults[0]


DEEP = "[" * 1500 + "]" * 1500


@pytest.mark.parametrize(
    ("entry", "faults"),
    [
        (f'{{"not_before": {"9" * 5000}}}', 1),
        (f'{{"a": {DEEP}}}', 1),
        ('{"}": ' * 1500 + '"]"' + "}" * 1500, 1),
        ("[" * 1500 + r'"\"]"' + "]" * 1500, 1),
        (f'{json.dumps(jwk())[:-1]}, "not_before": {"9" * 5000}}}', 1),
        (f'{json.dumps(jwk())[:-1]}, "note": {"9" * 5000}}}', 0),
        (f'{json.dumps(jwk())[:-1]}, "note": {DEEP}}}', 1),
    ],
)
def test_an_entry_that_python_cannot_read_does_not_knock_out_the_other_keys(
    entry: str, faults: int
) -> None:
    first, last = jwk(kid="first", iss="other"), jwk(kid="last", iss="other")
    text = f'{{"note": [[]], "keys": [{json.dumps(first)}, {entry}, {json.dumps(last)}]}}'
    for written in (text, text.encode(), text.encode("utf-16")):
        key_set = read_key_set(written)
        assert {"first", "last"} <= key_set.keys.keys()
        assert len(key_set.keys) == 3 - faults
        assert [each[:6] for each in key_set.faults] == ["key 2:"] * faults


@pytest.mark.parametrize(
    "text",
    [
        b'{"keys": [{"kid": "\xff"}]}',
        f'{{"keys": [{DEEP}]',
        f'{{"keys": [{DEEP}}}',
        f'{{"keys": [{DEEP[1:]}]}}',
    ],
)
def test_a_text_that_is_no_json_outside_its_entries_is_no_key_set(text: str | bytes) -> None:
    with pytest.raises(ConfigurationError, match="the key set is not JSON"):
        read_key_set(text)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": 1}', "[" * 100_000, '{"keys": [1]}'])
def test_what_is_no_key_set_is_refused(text: str) -> None:
    try:
        key_set = read_key_set(text)
    except ConfigurationError:
        return
    assert (key_set.keys, len(key_set.faults)) == ({}, 1)


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256"])
def test_a_private_key_signs_what_its_public_half_checks(algorithm: Any) -> None:
    yard = Yard()
    private = yard.key("office", algorithm=algorithm)
    (key,) = read_key_set(yard.text()).keys["office-1"]
    assert private.thumbprint == key.thumbprint
    assert key.verify(b"message", private.sign(b"message"))
    assert not key.verify(b"massage", private.sign(b"message"))
    assert not key.verify(b"message", b"")


def test_a_private_key_is_read_from_a_pem() -> None:
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    (key,) = read_private(pem.decode())
    assert key.algorithm == "EdDSA"


def of_an_unknown_curve() -> str:
    """Return a P-256 key that names another curve, which the library does not support."""
    der = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    other = b64encode(
        der.replace(bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030105"))
    ).decode()
    return f"-----BEGIN PRIVATE KEY-----\n{other}\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "hunter2",
        '{"keys": []}',
        '{"kty": "oct", "k": "aHVudGVyMg"}',
        '{"keys": ["hunter2"]}',
        '{"keys": [["hunter2"]]}',
        "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----",
        rsa.generate_private_key(65537, 2048)
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode(),
        of_an_unknown_curve(),
        json.dumps(jwk()),
    ],
)
def test_what_is_no_private_key_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigurationError, match="private key is invalid") as caught:
        read_private(text)
    assert "hunter2" not in str(caught.value)


def test_a_key_shows_nothing_of_its_secret() -> None:
    secret = generate()
    (key,) = read_private(json.dumps(secret))
    assert secret["d"] not in repr(key)
    with pytest.raises(ConfigurationError) as caught:
        dev_key("hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_shared_secret_is_no_public_key() -> None:
    pem = (
        "-----BEGIN PUBLIC KEY-----\n"
        "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"
        "-----END PUBLIC KEY-----"
    )
    with pytest.raises(ConfigurationError, match="secret text"):
        dev_key(pem)


# --- Sources of private keys ---


def test_a_private_key_file_of_its_owner_alone_is_read(tmp_path: Path) -> None:
    file = tmp_path / "office.key"
    file.write_text(json.dumps(generate()))
    for mode in (0o600, 0o400):
        file.chmod(mode)
        assert len(private_key_source(str(file))()) == 1


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_private_key_file_that_others_may_read_is_refused(mode: int, tmp_path: Path) -> None:
    file = tmp_path / "office.key"
    file.write_text(json.dumps(generate()))
    file.chmod(mode)
    with pytest.raises(ConfigurationError, match=rf"has mode {mode:o}\. .*: run `chmod 600"):
        private_key_source(str(file))()


def test_a_private_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"BUS_KEY: .*gone\.key cannot be read: No such file"
    ):
        private_key_source(str(tmp_path / "gone.key"))()


def test_a_directory_holds_the_key_file_of_each_service(tmp_path: Path) -> None:
    """`bus run` serves several services in one process, each with its own key."""
    for name in ("office", "mail"):
        (tmp_path / f"{name}.key").write_text(json.dumps(generate()))
        (tmp_path / f"{name}.key").chmod(0o600)
    prints = [private_key_source(str(tmp_path), owner=name)() for name in ("office", "mail")]
    assert prints[0][0].thumbprint != prints[1][0].thumbprint
    with pytest.raises(ConfigurationError, match=r"BUS_OPERATOR_KEY: .* cannot be read: Is a dir"):
        private_key_source(str(tmp_path), "BUS_OPERATOR_KEY")()


def test_a_directory_without_the_key_of_a_service_names_the_keys_that_it_has(
    tmp_path: Path,
) -> None:
    def read(owner: str) -> str:
        with pytest.raises(ConfigurationError) as caught:
            private_key_source(str(tmp_path), owner=owner)()
        return str(caught.value)

    assert "has no file mial.key. It has no keys. Correct the name" in read("mial")
    for name in ("office", "mail"):
        (tmp_path / f"{name}.key").write_text(json.dumps(generate()))
    assert read("mial") == (
        f"BUS_KEY: the directory {tmp_path} has no file mial.key. It has the keys of mail, office; "
        "did you mean 'mail'? Correct the name of the service, or create its key with "
        "`bus keys new mial`."
    )


@pytest.mark.parametrize(
    "secret",
    [
        "hunter2 is what all services of a test share",
        "Gb9/ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=",
        "/hunter2",
        "hunter2\0",
        "a" * 5000,
    ],
)
def test_a_private_key_that_was_taken_for_a_path_is_not_shown(secret: str) -> None:
    """Use the shared secret of `BUS_AUTH=dev` as a path, as happens if `BUS_AUTH` is not set."""
    with pytest.raises(ConfigurationError, match=r"BUS_KEY: .*not shown.*cannot be read") as caught:
        private_key_source(secret)()
    assert secret not in str(caught.value)


def test_a_private_key_can_be_the_settings_text() -> None:
    assert len(private_key_source(json.dumps(generate()))()) == 1


# --- Sources of public keys ---


@pytest.mark.parametrize(
    "url",
    [
        "http://keys.example/jwks.json",
        "ftp://keys.example",
        "file:///etc/passwd",
        "https://",
        "https://u:p@keys.example/",
    ],
)
def test_public_keys_come_by_https_or_from_a_file(url: str) -> None:
    with pytest.raises(ConfigurationError, match="BUS_JWKS must be a path or an https URL"):
        public_key_source(url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://a..b/jwks.json", "the host of the URL is not valid"),
        (f"https://{'a' * 64}.example/jwks.json", "the host of the URL is not valid"),
        ("https://\u2028/jwks.json", "the host of the URL is not valid"),
        ("https://keys example/jwks.json", "the host of the URL is not valid"),
        ("https://keys.example/schl\u00fcssel", "Write each of these characters percent-encoded"),
        ("https://keys.example/?a b", "Write each of these characters percent-encoded"),
    ],
)
def test_a_url_that_http_cannot_request_is_refused_at_the_start(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        public_key_source(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://keys.example:8443/jwks.json?version=2",
        "https://schl\u00fcssel.example/jwks.json",
        "https://keys_1.example./%20",
        "https://127.0.0.1/",
        "https://[::1]:8443/jwks.json",
    ],
)
def test_a_name_of_any_language_and_an_address_can_be_the_host_of_the_url(url: str) -> None:
    assert public_key_source(url) is not None


def test_public_keys_are_fetched_by_https_from_who_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = certificates(tmp_path / "tls", "localhost")
    text = Yard().text()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("location", "/jwks.json")
                self.end_headers()
                return
            body = text if self.path == "/jwks.json" else b"x" * (MAX_KEY_SET_BYTES + 1)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, *args: Any) -> None: ...

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    server = Server(("127.0.0.1", 0), Answer)
    server.context = context
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        port = server.server_address[1]
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            asyncio.run(fetched(f"https://localhost:{port}/jwks.json"))
        monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
        assert asyncio.run(fetched(f"https://localhost:{port}/jwks.json")) == text
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            asyncio.run(fetched(f"https://127.0.0.1:{port}/jwks.json"))
        with pytest.raises(OSError, match="302"):
            asyncio.run(fetched(f"https://localhost:{port}/moved"))
        with pytest.raises(ConfigurationError, match="larger than"):
            asyncio.run(fetched(f"https://localhost:{port}/large"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Server(HTTPServer):
    """An HTTPS server that does not print errors of clients that disconnect."""

    context: ssl.SSLContext

    @override
    def finish_request(self, request: Any, client_address: Any) -> None:
        try:
            secured = self.context.wrap_socket(request, server_side=True)
        except OSError:
            return  # The client distrusts the certificate.
        with secured:
            super().finish_request(secured, client_address)

    @override
    def handle_error(self, *_: Any) -> None: ...


async def fetched(url: str) -> bytes:
    return await public_key_source(url)()


# --- Refreshing ---


@virtual
async def test_a_new_key_is_found_by_looking_again() -> None:
    yard = Yard()
    yard.key("office")
    ring = await yard.started("office")
    yard.key("mail")
    assert ring.get("mail-1") == ()
    yard.clock.now += 10
    await ring.refresh()
    assert ring.get("mail-1") != ()


@virtual
async def test_messages_with_unknown_keys_start_one_task_that_looks_again() -> None:
    yard = Yard()
    yard.key("office")
    verifier = yard.verifier("office", await yard.started("office"))
    yard.clock.now += 10
    before = len(asyncio.all_tasks())
    for _ in range(1000):
        verifier.refresh_keys_soon()
    assert len(asyncio.all_tasks()) == before + 1
    yard.key("mail")
    await settle_down()
    yard.clock.now += 10
    verifier.refresh_keys_soon()
    await settle_down()
    assert verifier._ring.get("mail-1") != (), "a later message looks again"


@virtual
async def test_it_looks_at_most_every_ten_seconds_however_many_ask() -> None:
    yard = Yard()
    yard.key("office")
    ring = await yard.started("office")
    for second in range(60):
        yard.clock.now = NOW + second
        await asyncio.gather(*(ring.refresh() for _ in range(100)))
    assert yard.fetches == 6


@virtual
async def test_who_comes_during_a_look_waits_for_the_same() -> None:
    yard = Yard()
    yard.key("office")
    go, looks = asyncio.Event(), []

    async def slow() -> bytes:
        looks.append(1)
        if len(looks) > 1:
            await go.wait()
        return yard.text()

    ring = Keyring(
        "office", slow, lambda: yard.private["office"], clock=yard.clock, timer=yard.clock
    )
    await ring.start()
    yard.clock.now += 10
    yard.key("mail")
    waiting = [asyncio.ensure_future(ring.refresh()) for _ in range(10)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # The other callers still get the result.
    go.set()
    await asyncio.gather(*waiting[1:])
    assert len(looks) == 2
    assert ring.get("mail-1") != ()


@pytest.mark.parametrize(
    "answer",
    [
        OSError("no route to host"),
        b"<html>maintenance</html>",
        b'{"keys": []}',
        b'{"keys": [{"kid": "a", "iss": "a", "kty": []}]}',
        TimeoutError(),
        ValueError("hunter2"),
        RecursionError("hunter2"),
    ],
)
def test_the_last_good_keys_stay_while_the_source_is_down(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    virtual(source_down)(answer)
    (warning,) = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert warning.startswith("the keys of BUS_JWKS cannot be read (")
    assert warning.endswith("); the last valid keys stay in use")
    assert "hunter2" not in warning


async def source_down(answer: Any) -> None:
    yard = Yard()
    yard.key("office")
    down = False

    async def source() -> bytes:
        if not down:
            return yard.text()
        if isinstance(answer, bytes):
            return answer
        raise answer

    ring = Keyring(
        "office", source, lambda: yard.private["office"], clock=yard.clock, timer=yard.clock
    )
    await ring.start()
    down = True
    for _ in range(3):
        yard.clock.now += 10
        await ring.refresh()
    assert ring.get("office-1") != ()
    assert ring.signing_key().key.id == "office-1"
    down = False
    yard.key("mail")
    yard.clock.now += 10
    await ring.refresh()
    assert ring.get("mail-1") != ()


@virtual
async def test_it_looks_again_every_minute_by_itself() -> None:
    yard = Yard()
    yard.key("office")
    ring = yard.ring("office")
    ring._timer = asyncio.get_running_loop().time
    await ring.start()
    looking = asyncio.ensure_future(ring.run())
    await asyncio.sleep(601)
    assert yard.fetches == 11
    looking.cancel()


@virtual
async def test_an_unexpected_error_does_not_end_the_reading_so_a_revocation_still_counts() -> None:
    yard = Yard()
    yard.key("office")
    yard.key("mail")
    fault: list[Exception] = []

    async def source() -> bytes:
        if fault:
            raise fault[0]
        return yard.text()

    loop = asyncio.get_running_loop()
    ring = Keyring("office", source, lambda: yard.private["office"], timer=loop.time)
    await ring.start()
    looking = asyncio.ensure_future(ring.run())
    fault.append(ValueError("read length must be non-negative or -1"))
    await asyncio.sleep(61)
    assert ring.get("mail-1") != ()
    fault.clear()
    del yard.public["mail-1"]
    await asyncio.sleep(60)
    assert ring.get("mail-1") == ()
    looking.cancel()


@virtual
async def test_a_service_whose_key_nobody_could_check_does_not_start() -> None:
    yard = Yard()
    yard.key("office")
    yard.key("mail")
    yard.private["mail"] = yard.private["office"]
    with pytest.raises(
        ConfigurationError,
        match=r"BUS_KEY belongs to the service 'office', but this process runs as 'mail'\. "
        r"Create a key with `bus keys new mail`, or pass `--as office` to `bus call`, .*\. "
        r"If the process runs several services, set BUS_KEY to the directory with their keys\.$",
    ):
        await yard.started("mail")
    yard.private["mail"] = [yard.key("ida", "ida-1", role="operator")]
    with pytest.raises(
        ConfigurationError,
        match=r"the operator 'ida', but this process runs as 'mail'\. .* `bus keys new mail`\.$",
    ):
        await yard.started("mail")
    yard.private["mail"] = [yard.key("mail", "mail-2")]
    del yard.public["mail-2"]
    with pytest.raises(ConfigurationError, match="BUS_JWKS has no public key of mail that matches"):
        await yard.started("mail")


@virtual
async def test_the_newest_key_that_is_valid_signs() -> None:
    yard = Yard()
    yard.key("office", "old", retired_at=NOW + 400)
    yard.key("office", "next", not_before=NOW + 100)
    ring = await yard.started("office")
    signing = []
    for seconds in (0, 99, 100, 399, 400, 50):
        yard.clock.now = NOW + seconds
        signing.append(ring.signing_key().key.id)
    assert signing == ["old", "old", "next", "next", "next", "old"]


@virtual
async def test_without_a_valid_key_nothing_is_signed() -> None:
    yard = Yard()
    yard.key("office", retired_at=NOW + 100)
    ring = await yard.started("office")
    yard.clock.now += 100
    with pytest.raises(FailedPrecondition, match="office has no key that is valid now"):
        ring.signing_key()


# --- The key directory ---


def test_a_directory_holds_keys_that_can_be_used(tmp_path: Path) -> None:
    keys = KeyDirectory(tmp_path / "keys")
    keys.new("office", "office-1")
    keys.new("ida", "ida-1", role="operator", algorithm="ES256")
    assert keys.key_file("office").stat().st_mode & 0o777 == 0o600
    ring = Keyring(
        "office",
        public_key_source(str(keys.set_file)),
        private_key_source(str(keys.key_file("office"))),
    )
    asyncio.run(ring.start())
    assert ring.signing_key().key.id == "office-1"
    assert "d" not in keys.public()[0]


def test_a_rotation_publishes_the_next_key_and_ends_the_one_before(tmp_path: Path) -> None:
    keys = KeyDirectory(tmp_path)
    keys.new("office", "office-1")
    keys.new("mail", "mail-1")
    keys.rotate("office", "office-2", begins=int(NOW), retires=int(NOW) + 300)
    keys.rotate("office", "office-3", begins=int(NOW) + 1000, retires=int(NOW) + 1300)
    times = {
        each["kid"]: (each.get("not_before"), each.get("retired_at")) for each in keys.public()
    }
    assert times == {
        "office-1": (None, int(NOW) + 300),
        "office-2": (int(NOW), int(NOW) + 1300),
        "office-3": (int(NOW) + 1000, None),
        "mail-1": (None, None),
    }
    assert len(private_key_source(str(keys.key_file("office")))()) == 3


def test_a_service_has_one_first_key(tmp_path: Path) -> None:
    keys = KeyDirectory(tmp_path)
    keys.new("office", "office-1")
    with pytest.raises(AlreadyExists, match="keys rotate office"):
        keys.new("office", "office-2")
    with pytest.raises(NotFound, match="did you mean 'office'"):
        keys.rotate("ofice", "office-2", begins=int(NOW), retires=int(NOW))
    with pytest.raises(NotFound, match="the keys of office are office-1"):
        keys.update("office", retired_at=int(NOW))
    with pytest.raises(NotFound, match="did you mean 'office-1'"):
        keys.update("offce-1", retired_at=int(NOW))
    with pytest.raises(NotFound, match="keys new mail"):
        keys.rotate("mail", "mail-2", begins=0, retires=0)
    with pytest.raises(NotFound, match="no key mail-1"):
        keys.update("mail-1", retired_at=1)


@pytest.mark.parametrize("name", ["../office", "Office", "", "bus", "a" * 61])
def test_what_is_no_service_gets_no_key(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        KeyDirectory(tmp_path / "keys").new(name, "kid-1")
    assert not list(tmp_path.rglob("*.key"))


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        KeyDirectory(tmp_path / "keys").new("office", "office-1")


def test_two_at_a_time_lose_no_key(tmp_path: Path) -> None:
    keys = KeyDirectory(tmp_path)
    threads = [
        threading.Thread(target=keys.new, args=(f"service-{number}", f"kid-{number}"))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys.public()) == 8
    assert not [*tmp_path.glob(".*")]


def test_what_was_made_is_told_to_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--directory", str(tmp_path), "--json")
    for arguments in (("new", "office", "mail"), ("rotate", "office")):
        with pytest.raises(SystemExit) as ended:
            main(["keys", *arguments, *where])
        assert not ended.value.code
    written = capsys.readouterr()
    office, mail, following = (json.loads(line) for line in written.out.splitlines())
    assert (office["of"], mail["of"], following["of"]) == ("office", "mail", "office")
    assert {
        "kid": office["kid"],
        "key": str(tmp_path / "office.key"),
        "jwks": str(tmp_path / "jwks.json"),
    }.items() <= office.items()
    published = {each["kid"]: each for each in KeyDirectory(tmp_path).public()}
    assert published[following["kid"]]["not_before"] == following["used_from"]
    assert published[office["kid"]]["retired_at"] == following["before_retired_at"]
    assert written.err == ""


def test_one_wrong_name_among_several_makes_no_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for names in (("office", "Mail"), ("office", "mail", "office")):
        with pytest.raises(SystemExit):
            main(["keys", "new", *names, "--directory", str(tmp_path)])
        made = {each.name for each in tmp_path.glob("*.key")}
        assert made == (set() if "Mail" in names else {"office.key", "mail.key"})
    with pytest.raises(SystemExit) as ended:
        main(["keys", "new", "desk", "mail", "--directory", str(tmp_path)])
    assert ended.value.code == os.EX_CANTCREAT
    assert not (tmp_path / "desk.key").exists()
    assert "Create the next key with `bus keys rotate mail`" in " ".join(
        capsys.readouterr().err.split()
    )
