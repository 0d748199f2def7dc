import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest

from bus.operations.brokers.ports import LOOPBACK, free_ports, speaks_amqp
from bus.operations.management_api import Management
from bus.testing.rabbitmq import with_vhost
from bus.transports.rabbitmq.handshake import probe
from tests.polling import until

BUS = (sys.executable, "-m", "bus.cli")
PATIENCE = 120
"""Seconds for a command. The slowest command starts a node."""


def bus(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BUS, *arguments],
        env=without_broker(environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*BUS, *arguments],
        env=without_broker(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def without_broker(environment: Mapping[str, str]) -> dict[str, str]:
    """Return this environment without the settings of the bus, updated with `environment`."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("BUS_")},
        "BUS_ENV_FILE": os.devnull,
        "COLUMNS": "200",
        **environment,
    }


def read_card(process: subprocess.Popen[str]) -> dict[str, str]:
    """Read the lines that `bus broker` prints at its start, up to the last one."""
    assert process.stdout
    card: dict[str, str] = {}
    for line in process.stdout:
        if line.startswith("Ctrl-C"):
            return card
        name, value = line[:10].strip(), line[10:].strip()
        card[name] = value
    raise AssertionError(process.stderr and process.stderr.read())


async def test_broker_runs_until_ctrl_c_and_leaves_nothing() -> None:
    with running("broker") as process:
        card = read_card(process)
        assert (await probe(card["URL"])).product == "RabbitMQ"
        assert (await Management(card["UI"], card["URL"]).call("GET", "whoami"))["name"] == card[
            "user"
        ]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    assert not speaks_amqp(LOOPBACK, urlsplit(card["URL"]).port or 0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_broker_can_be_ended_while_it_starts(number: signal.Signals, code: int) -> None:
    with running("broker") as process:
        await until(lambda: children(process.pid), "the node's guard", PATIENCE)
        guard = children(process.pid)[0]
        process.send_signal(number)
        assert process.wait(PATIENCE) == code
        assert not children(guard)


def children(pid: int) -> list[int]:
    """Return the child processes of `pid` that have not ended."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "ppid=,pid=,stat="], check=True, capture_output=True, text=True
    ).stdout
    rows = (line.split() for line in listed.splitlines())
    return [
        int(child)
        for parent, child, state in rows
        if int(parent) == pid and not state.startswith("Z")
    ]


def test_broker_starts_nothing_where_one_is_named(vhost_url: str) -> None:
    done = bus("broker", BUS_URL=vhost_url)
    assert done.returncode == 0
    assert "nothing is started" in done.stdout
    assert str(urlsplit(vhost_url).password) not in done.stdout
    program = bus(
        "broker", "--json", BUS_URL=vhost_url, BUS_MANAGEMENT_URL="http://somewhere:15672"
    )
    assert json.loads(program.stdout) == {
        "broker": "named",
        "url": vhost_url,
        "management_url": "http://somewhere:15672",
    }


def test_broker_that_cannot_be_had_is_one_line_and_an_exit_code() -> None:
    done = bus("broker", BUS_URL="memory:")
    assert (done.returncode, done.stdout) == (os.EX_CONFIG, "")
    assert done.stderr.startswith("error: BUS_URL=memory:")
    assert done.stderr.count("\n") == 1


def test_debug_shows_where_an_error_came_from() -> None:
    for arguments in (("--debug", "broker"), ("broker", "--debug")):
        done = bus(*arguments, BUS_URL="memory:")
        assert done.returncode == os.EX_CONFIG
        assert "Traceback" in done.stderr


def test_doctor_finds_all_well_with_a_broker_that_answers(vhost_url: str) -> None:
    done = bus("doctor", BUS_URL=vhost_url, BUS_AUTH="off")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no problems found" in done.stdout
    assert "RabbitMQ" in done.stdout
    assert "\x1b" not in done.stdout
    assert str(urlsplit(vhost_url).password) not in done.stdout


def test_doctor_says_what_a_service_needs_to_prove_who_it_is(vhost_url: str) -> None:
    done = bus("doctor", BUS_URL=vhost_url, BUS_GRANTS="grants.toml")
    assert done.returncode == os.EX_CONFIG, done.stdout + done.stderr
    assert "missing: BUS_KEY and BUS_JWKS are not set, so a service cannot start." in done.stdout
    assert "no problems found" not in done.stdout


def test_doctor_answers_programs_in_json(vhost_url: str) -> None:
    report = json.loads(bus("doctor", "--json", BUS_URL=vhost_url).stdout)
    assert report["broker"] == "named"
    assert report["server"]["version"][0].isdigit()
    assert report["packages"]["aio-pika"]
    assert report["problems"] == []


def test_doctor_starts_a_broker_when_told_to() -> None:
    done = bus("doctor", "--json", "--start", BUS_AUTH="off")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert report["server"]["product"] == "RabbitMQ"
    assert report["broker"] in {"node", "container"}


def wrong_password(url: str) -> str:
    return url.replace(f":{urlsplit(url).password}@", ":not-the-password@")


def nobody(url: str) -> str:
    return f"amqp://guest:guest@{LOOPBACK}:{free_ports(1)[0]}/"


def no_vhost(url: str) -> str:
    return with_vhost(url, "nowhere")


def not_amqp(url: str) -> str:
    return "http://guest:guest@localhost/"


def no_such_host(url: str) -> str:
    return "amqp://guest:guest@nowhere.invalid/"


@pytest.mark.parametrize(
    ("spoil", "code", "advice"),
    [
        (wrong_password, os.EX_NOPERM, "refuses the user or the password"),
        (no_vhost, os.EX_CONFIG, "refuses the virtual host 'nowhere'"),
        (nobody, os.EX_UNAVAILABLE, "cannot be reached"),
        (
            no_such_host,
            os.EX_UNAVAILABLE,
            "the broker at nowhere.invalid:5672 cannot be reached",
        ),
        (not_amqp, os.EX_CONFIG, "amqp://user:password@host:port/vhost"),
    ],
)
def test_doctor_says_what_is_wrong_with_a_broker(
    broker: str, spoil: Callable[[str], str], code: int, advice: str
) -> None:
    done = bus("doctor", BUS_URL=spoil(broker), BUS_AUTH="off")
    assert done.returncode == code, done.stdout
    assert advice in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert str(urlsplit(broker).password) not in done.stdout


def test_a_command_that_does_not_exist_is_a_usage_error() -> None:
    done = bus("doktor")
    assert done.returncode == 2
    assert "doctor" in done.stderr


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_colours_unless_it_wants_none(
    environment: dict[str, str], coloured: bool
) -> None:
    shown = on_terminal("contracts", "show", "transcription.get.v1", **environment)
    # The codes 30 to 37 are colours. The code 3 is italics, which NO_COLOR allows.
    assert bool(re.search(r"\x1b\[(\d+;)*3[0-7]m", shown)) == coloured


def test_a_pipe_gets_no_colours() -> None:
    assert "\x1b" not in bus("contracts", "show", "transcription.get.v1").stdout


def on_terminal(*arguments: str, **environment: str) -> str:
    """Return the output of a command on a terminal of 80 columns."""
    ours, its = pty.openpty()
    settings = {**without_broker(environment), "TERM": "xterm-256color", "COLUMNS": "80"}
    with subprocess.Popen([*BUS, *arguments], env=settings, stdin=its, stdout=its, stderr=its):
        os.close(its)
        written = b""
        with suppress(OSError):  # Linux raises it when the other end is closed
            while part := os.read(ours, 4096):
                written += part
    os.close(ours)
    return written.decode()
