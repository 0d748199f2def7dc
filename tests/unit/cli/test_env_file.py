"""The file `.env`: what the command line takes from it, and that nothing else reads it."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bus.cli import ENV_FILE, prepare_environment, run
from bus.cli.env_file import current_file, describe_removal, load_env_file
from bus.cli.env_file_names import EnvFile, describe_file
from bus.cli.env_file_rules import LOGGING, PROTECTED, VARIABLE
from bus.cli.errors import Reporter
from bus.cli.run import log_environment
from bus.errors import ConfigurationError
from bus.settings import Settings
from bus.settings.service_config import KEYS
from bus.settings.service_defaults import POLICY_KEYS
from bus.settings.variables import OTHER_VARIABLES

URL = "amqp://user:secret@broker/"
ALSO_PROTECTED = [
    *("BUS_TEST_BROKER", "bus_auth", "Bus_Key"),
    *("BUS_SERVICES__BILLING__BASE_URL", "bus_services__billing_eu__base_url"),
]
HARMLESS = sorted(
    {
        f"BUS_{field.upper()}"
        for field in Settings.model_fields
        if field not in {"services", "service_defaults"}
    }
    - PROTECTED
    | {"BUS_CONTRACTS"}
    | {f"BUS_SERVICES__BILLING__{key.upper()}" for key in KEYS if key != "base_url"}
    | {f"BUS_SERVICE_DEFAULTS__{key.upper()}" for key in POLICY_KEYS}
)

NAMES = "BUS_A0, BUS_A1, BUS_A2, BUS_A3, BUS_A4"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of `.env` in an empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".env"


def load(**environment: str) -> tuple[EnvFile, dict[str, str]]:
    """Load the file, and return its names and the environment without `BUS_ENV_FILE`."""
    found = load_env_file(environment)
    assert found is not None
    assert environment.pop("BUS_ENV_FILE") == os.devnull
    return found, environment


def test_a_file_sets_settings_and_only_their_names_are_kept(file: Path) -> None:
    file.write_text(f"BUS_URL={URL}\nBUS_HEARTBEAT=5\n")
    found, environment = load()
    assert environment == {"BUS_URL": URL, "BUS_HEARTBEAT": "5"}
    assert found.describe_taken() == "settings from .env: BUS_URL, BUS_HEARTBEAT"
    assert "secret" not in repr(found)
    assert current_file() == found


def test_the_environment_wins_but_an_empty_variable_is_not_set(file: Path) -> None:
    file.write_text(f"BUS_URL={URL}\nBUS_HEARTBEAT=5\nBUS_TOPOLOGY=\n")
    found, environment = load(BUS_HEARTBEAT="7", BUS_URL=" ")
    assert environment == {"BUS_URL": URL, "BUS_HEARTBEAT": "7"}
    assert (found.taken, found.overridden) == (("BUS_URL",), ("BUS_HEARTBEAT",))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("export BUS_URL=there", "there"),
        ("  BUS_URL = there  # a comment", "there"),
        ("BUS_URL='there'", "there"),
        ('BUS_URL="there"', "there"),
        ("BUS_URL=amqp://u:p#ss@there", "amqp://u:p#ss@there"),
        ("BUS_URL=amqp://${HOME}@there", "amqp://${HOME}@there"),
        ("BUS_URL=here\nBUS_URL=there", "there"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
@pytest.mark.parametrize("start", ["", "\ufeff", "\ufeff# comment\n\n"])
def test_a_line_is_read_as_other_programs_read_it(
    line: str, value: str, start: str, end: str, file: Path
) -> None:
    file.write_bytes(f"{start}{line}{end}".encode())
    assert load(HOME="/home")[1] == {"HOME": "/home", "BUS_URL": value}


def test_an_empty_line_of_a_name_removes_the_earlier_one(file: Path) -> None:
    file.write_text("BUS_URL=here\nBUS_URL=\n")
    assert load()[1] == {}


# --- What a file that was found must not set ---


def test_every_setting_is_protected_or_harmless() -> None:
    assert HARMLESS == [
        "BUS_CACHE_BYTES",
        "BUS_CACHE_ENTRIES",
        "BUS_CANCEL_GRACE",
        "BUS_CHAOS",
        "BUS_CONNECT_TIMEOUT",
        "BUS_CONSUMER_TIMEOUT",
        "BUS_CONTRACTS",
        "BUS_DELIVERY_LIMIT",
        "BUS_DISCOVERY",
        "BUS_ENCRYPT",
        "BUS_FASTLANE",
        "BUS_HEALTH_PORT",
        "BUS_HEARTBEAT",
        "BUS_INBOX_RETENTION",
        "BUS_JOB_LEASE",
        "BUS_LOAD_SHEDDING",
        "BUS_LOG_FORMAT",
        "BUS_LOG_LEVEL",
        "BUS_LOG_MESSAGES",
        "BUS_MANAGEMENT_URL",
        "BUS_MAX_MESSAGE",
        "BUS_MESSAGE_TTL",
        "BUS_PUBLISH_TIMEOUT",
        "BUS_PUBLISH_WINDOW",
        "BUS_REMEMBERED_MESSAGES",
        "BUS_REQUEST_QUEUE",
        "BUS_REQUEST_TIMEOUT",
        "BUS_RETAIN_FAILED",
        "BUS_RETAIN_SUCCEEDED",
        "BUS_SERVICES__BILLING__ATTEMPT_TIMEOUT",
        "BUS_SERVICES__BILLING__BREAKER",
        "BUS_SERVICES__BILLING__BREAKER_CONSECUTIVE_FAILURES",
        "BUS_SERVICES__BILLING__BREAKER_FAILURE_RATE",
        "BUS_SERVICES__BILLING__BREAKER_LONGEST_OPEN_TIME",
        "BUS_SERVICES__BILLING__BREAKER_MIN_CALLS",
        "BUS_SERVICES__BILLING__BREAKER_OPEN_GROWTH",
        "BUS_SERVICES__BILLING__BREAKER_OPEN_TIME",
        "BUS_SERVICES__BILLING__BREAKER_SLOW_CALL",
        "BUS_SERVICES__BILLING__BREAKER_SLOW_RATE",
        "BUS_SERVICES__BILLING__BREAKER_SUCCESSES",
        "BUS_SERVICES__BILLING__BREAKER_WINDOW",
        "BUS_SERVICES__BILLING__CACHE",
        "BUS_SERVICES__BILLING__HEDGE_AFTER",
        "BUS_SERVICES__BILLING__MAX_IN_FLIGHT",
        "BUS_SERVICES__BILLING__MAX_WAITING",
        "BUS_SERVICES__BILLING__RETRIES",
        "BUS_SERVICES__BILLING__RETRY_BUDGET",
        "BUS_SERVICES__BILLING__TIMEOUT",
        "BUS_SERVICE_DEFAULTS__ATTEMPT_TIMEOUT",
        "BUS_SERVICE_DEFAULTS__BREAKER",
        "BUS_SERVICE_DEFAULTS__BREAKER_CONSECUTIVE_FAILURES",
        "BUS_SERVICE_DEFAULTS__BREAKER_FAILURE_RATE",
        "BUS_SERVICE_DEFAULTS__BREAKER_LONGEST_OPEN_TIME",
        "BUS_SERVICE_DEFAULTS__BREAKER_MIN_CALLS",
        "BUS_SERVICE_DEFAULTS__BREAKER_OPEN_GROWTH",
        "BUS_SERVICE_DEFAULTS__BREAKER_OPEN_TIME",
        "BUS_SERVICE_DEFAULTS__BREAKER_SLOW_CALL",
        "BUS_SERVICE_DEFAULTS__BREAKER_SLOW_RATE",
        "BUS_SERVICE_DEFAULTS__BREAKER_SUCCESSES",
        "BUS_SERVICE_DEFAULTS__BREAKER_WINDOW",
        "BUS_SERVICE_DEFAULTS__CACHE",
        "BUS_SERVICE_DEFAULTS__HEDGE_AFTER",
        "BUS_SERVICE_DEFAULTS__MAX_IN_FLIGHT",
        "BUS_SERVICE_DEFAULTS__MAX_WAITING",
        "BUS_SERVICE_DEFAULTS__RETRIES",
        "BUS_SERVICE_DEFAULTS__RETRY_BUDGET",
        "BUS_SERVICE_VERSION",
        "BUS_START_TIMEOUT",
        "BUS_STOP_GRACE",
        "BUS_TOPOLOGY",
        "BUS_TRACES",
        "BUS_URL",
    ], "decide whether a new setting is protected (PROTECTED), and add it here if it is not"


@pytest.mark.parametrize("name", HARMLESS)
def test_a_found_file_sets_a_harmless_variable(name: str, file: Path) -> None:
    for value in LOGGING.get(name, ("1",)):
        file.write_text(f"{name}= {value}")
        assert load()[0].taken == (name,)


@pytest.mark.parametrize("name", [*sorted(PROTECTED), *ALSO_PROTECTED])
def test_a_found_file_never_decides_about_trust_but_a_named_one_does(name: str, file: Path) -> None:
    file.write_text(f"{name}=secret")
    found, environment = load()
    assert (found.refused, environment) == ((name,), {})
    (line,) = found.describe_problems()
    assert line.startswith(f".env does not set {name}: only a file that you name may do so.")
    assert line.endswith(f"run `export BUS_ENV_FILE={file}`.")
    assert load(BUS_ENV_FILE=str(file))[1] == {name: "secret"}


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("BUS_URL=amqp://other", {"BUS_PASSWORD_FILE": "/run/password"}),
        ("BUS_MANAGEMENT_URL=https://other", {"BUS_URL": URL}),
        ("BUS_MANAGEMENT_URL=https://other", {"BUS_PASSWORD_FILE": "/run/password"}),
    ],
)
@pytest.mark.parametrize("is_named", [False, True])
def test_no_file_chooses_who_gets_a_password_of_the_environment(
    line: str, given: dict[str, str], is_named: bool, file: Path
) -> None:
    file.write_text(line)
    found, environment = load(**given, **({"BUS_ENV_FILE": str(file)} if is_named else {}))
    name = line.partition("=")[0]
    assert environment == given
    assert (found.receivers, found.taken) == ((name,), ())
    (told,) = found.describe_problems()
    assert f"does not set {name}, because a password of the environment would be sent" in told


def test_a_found_file_leaves_the_variables_of_other_programs_alone(file: Path) -> None:
    file.write_text("LD_PRELOAD=evil.so\nSHOP_ROOMS=[]\nPATH=/evil\nnot a line\n")
    found, environment = load()
    assert (found.other, environment) == (("LD_PRELOAD", "SHOP_ROOMS", "PATH"), {})
    assert "SHOP_ROOMS" in (found.describe_other() or "")
    assert found.describe_problems() == []


@pytest.mark.parametrize(
    "name",
    [
        *("LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "PYTHONPATH", "PATH", "HOME", "BASH_ENV"),
        *("SSLKEYLOGFILE", "SSL_CERT_FILE", "OPENSSL_CONF", "RABBITMQ_HOME", "ERL_FLAGS"),
        *("GCONV_PATH", "GLIBC_TUNABLES", "PROMPT_COMMAND", "PS4", "BASH_FUNC_x", "SHELLOPTS"),
        *("DOCKER_HOST", "GIT_SSH", "GIT_SSH_COMMAND", "RABBITMQ_CONF_ENV_FILE", "XDG_RUNTIME_DIR"),
        *("EDITOR", "PAGER", "NODE_OPTIONS", "PERL5LIB", "REQUESTS_CA_BUNDLE"),
        *("BUS_ENV_FILE", "bus_env_file", "_BUS_COMPLETE"),
    ],
)
def test_no_file_decides_which_programs_run(name: str, file: Path) -> None:
    file.write_text(f"{name}=/evil\nSHOP_ROOMS=[]\n")
    found, environment = load(BUS_ENV_FILE=str(file))
    assert (found.forbidden, environment) == ((name,), {"SHOP_ROOMS": "[]"})
    assert name in found.describe_problems()[0]


@pytest.mark.parametrize(
    "name", ["RABBITMQ_PASSWORD", "GIT_COMMIT", "DOCKER_IMAGE", "PS", "SHELL_COLOUR", "HTTP_PROXY"]
)
def test_a_named_file_sets_the_variables_of_other_programs(name: str, file: Path) -> None:
    file.write_text(f"{name}=1")
    assert load(BUS_ENV_FILE=str(file))[1] == {name: "1"}


@pytest.mark.parametrize(
    "line", ["BUS_LOG_LEVEL=error", "BUS_LOG_LEVEL= error ", "BUS_LOG_FORMAT=none"]
)
def test_a_found_file_does_not_hide_warnings_but_a_named_one_does(line: str, file: Path) -> None:
    file.write_text(line)
    assert load()[0].refused == (line.partition("=")[0],)
    assert load(BUS_ENV_FILE=str(file))[0].refused == ()


def test_a_line_has_five_names_and_the_number_of_the_others(file: Path) -> None:
    file.write_text("".join(f"BUS_A{n}=1\n" for n in range(9)) + f"BUS_{'B' * 900}=1\n")
    assert (load()[0].describe_taken() or "").endswith(": " + NAMES + " and 5 more")
    file.write_text("BUS_ \n" * 9)
    with pytest.raises(ConfigurationError, match=r"line 1, 2, 3, 4, 5 and 4 more is invalid"):
        load()
    file.write_text(f"BUS_{'B' * 900}=1\n")
    assert (load()[0].describe_taken() or "").endswith(f": BUS_{'B' * 56}…")


def test_a_value_keeps_its_bytes_if_the_encoding_of_the_environment_lacks_a_character(
    file: Path,
) -> None:
    file.write_text("BUS_CONTRACTS=regale.bücher\nBUS_KEY=secret\n")
    code = (
        "import os; from bus.cli.env_file import load_env_file; load_env_file(os.environ);"
        "print(os.environb[b'BUS_CONTRACTS'])"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    shown = python(file, "-c", code, **ascii_only)
    assert (shown.stdout.strip(), shown.stderr) == (repr("regale.bücher".encode()), "")


# --- Files that cannot be used ---


def open_file(path: Path) -> None:
    path.chmod(0o666)


def open_directory(path: Path) -> None:
    path.parent.chmod(0o777)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_large(path: Path) -> None:
    path.write_text("#" * 131_073)


def make_binary(path: Path) -> None:
    path.write_bytes(b"BUS_URL=\xff")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (open_file, "the file has mode 666. Other users must not write to it: run `chmod o-w"),
        (open_directory, "all users can write to its directory. Move the file to a directory"),
        (make_pipe, "the file is not a regular file"),
        (make_binary, "the file is not UTF-8 text"),
        (make_large, "the file is larger than 131072 bytes"),
    ],
)
def test_a_found_file_that_others_could_write_is_not_used_and_the_reason_is_told(
    spoil: Callable[[Path], None], problem: str, file: Path
) -> None:
    file.write_text(f"BUS_URL={URL}")
    spoil(file)
    found, environment = load()
    assert environment == {}
    assert f".env is not used: {problem}" in found.describe_problems()[0]


def test_a_found_file_of_another_user_is_not_used(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(f"BUS_URL={URL}")
    os.chown(file, 4711, -1) if os.geteuid() == 0 else monkeypatch.setattr(
        os, "geteuid", lambda: 4711
    )
    found, environment = load()
    assert environment == {}
    (told,) = found.describe_problems()
    assert "the file belongs to another user. Copy it if you trust it, or set" in told
    assert "export" not in told


def test_a_directory_of_this_name_is_no_file(file: Path) -> None:
    file.mkdir()
    assert load_env_file({}) is None
    assert current_file() is None


@pytest.mark.parametrize("name", ["missing.env", "folder", "open.env"])
def test_a_named_file_that_cannot_be_used_is_an_error(name: str, file: Path) -> None:
    name = str(file.parent / name)
    (file.parent / "folder").mkdir()
    (file.parent / "open.env").write_text("BUS_URL=x")
    (file.parent / "open.env").chmod(0o666)
    with pytest.raises(ConfigurationError, match=f"^BUS_ENV_FILE: {name} "):
        load_env_file({"BUS_ENV_FILE": name})


@pytest.mark.parametrize("name", [".env", "./.env", "shop.env", "~/.env"])
def test_a_relative_path_is_refused_because_it_names_a_file_of_each_directory(
    name: str, file: Path
) -> None:
    file.write_text(f"BUS_URL={URL}")
    environment = {"BUS_ENV_FILE": name}
    with pytest.raises(ConfigurationError, match="is a relative path, which names a diff") as error:
        load_env_file(environment)
    assert f'run `export BUS_ENV_FILE="$PWD"/{shlex.quote(name)}`.' in str(error.value)
    assert str(file.parent) not in str(error.value)
    assert "BUS_URL" not in environment


def test_the_command_that_names_a_file_has_its_absolute_path_in_quotes(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = file.parent / "it's $HOME"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path(".env").write_text("BUS_AUTH=off\nSHOP=1\n")
    found, _ = load()
    for line in (*found.describe_problems(), found.describe_other() or ""):
        command = line.partition("`")[2].removesuffix("`.")
        assert shlex.split(command) == ["export", f"BUS_ENV_FILE={folder}/.env"]


def test_a_named_file_of_another_user_is_an_error(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(f"BUS_URL={URL}")
    os.chown(file, 4711, -1) if os.geteuid() == 0 else monkeypatch.setattr(
        os, "geteuid", lambda: 4711
    )
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        load_env_file({"BUS_ENV_FILE": str(file)})


@pytest.mark.parametrize(("mode", "is_refused"), [(0o777, True), (0o1777, False)])
def test_a_named_file_that_others_can_replace_is_an_error(
    mode: int, is_refused: bool, file: Path
) -> None:
    file.write_text(f"BUS_URL={URL}")
    file.parent.chmod(mode)
    with (
        pytest.raises(ConfigurationError, match="can be replaced, because all users can write")
        if is_refused
        else nullcontext()
    ):
        load_env_file({"BUS_ENV_FILE": str(file)})


def test_a_named_pipe_is_read(file: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"BUS_KEY=secret\n")
    os.close(writing)
    assert load(BUS_ENV_FILE=f"/dev/fd/{reading}")[1] == {"BUS_KEY": "secret"}
    os.close(reading)


def test_no_file_is_read_where_the_null_device_is_named(file: Path) -> None:
    file.write_text(f"BUS_URL={URL}")
    environment = {"BUS_ENV_FILE": os.devnull}
    assert load_env_file(environment) is None
    assert environment == {"BUS_ENV_FILE": os.devnull}


@pytest.mark.parametrize("line", ["BUS_URL", "BUS-URL=secret", "BUS_URL secret", 'BUS_URL="secret'])
def test_an_invalid_line_is_named_by_its_number_and_never_shown(line: str, file: Path) -> None:
    file.write_text(f"# comment\n\n\n{line}\nBUS_HEARTBEAT=5\nBUS_X Y=secret\n")
    for environment in ({}, {"BUS_ENV_FILE": str(file)}):
        with pytest.raises(ConfigurationError, match=r"\.env: line (4, )?6 is invalid") as caught:
            load_env_file(environment)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("mode", "is_told"), [(0o644, True), (0o640, True), (0o600, False)])
def test_a_named_file_with_a_secret_that_others_can_read_is_told(
    mode: int, is_told: bool, file: Path
) -> None:
    (file.parent / "operator.key").touch()
    file.write_text(f"BUS_KEY={'s' * 400}\nBUS_OPERATOR_KEY=operator.key\nBUS_URL={URL}\n")
    file.chmod(mode)
    told = load(BUS_ENV_FILE=str(file))[0].describe_problems()
    text = f"{file}: other users can read BUS_KEY in it. Run `chmod 600 {file}`."
    assert told == ([text] if is_told else [])


def test_the_doctor_describes_each_kind_of_names(file: Path) -> None:
    file.write_text("BUS_URL=x\nBUS_TOPOLOGY=verify\nBUS_KEY=secret\nSHOP=1\n")
    taken, refused, other = describe_file(load(BUS_TOPOLOGY="declare")[0])
    assert taken == ".env sets BUS_URL; already set: BUS_TOPOLOGY"
    assert refused.startswith(".env does not set BUS_KEY")
    assert other.startswith(".env does not set SHOP, because it is not a setting of the bus. If")
    assert describe_file(None) == ["none"]


# --- The command line ---


def test_children_inherit_the_variables_and_read_no_file_again(file: Path) -> None:
    file.write_text("BUS_HEARTBEAT=5")
    environment: dict[str, str] = {}
    prepare_environment(environment, ["health"], Reporter(debug=False))
    file.write_text("BUS_HEARTBEAT=6\nBUS_TOPOLOGY=verify")
    prepare_environment(environment, ["health"], Reporter(debug=False))
    assert environment == {"BUS_ENV_FILE": os.devnull, "BUS_HEARTBEAT": "5"}


def test_a_file_that_is_made_after_the_start_is_not_read_by_children(file: Path) -> None:
    environment: dict[str, str] = {}
    prepare_environment(environment, ["health"], Reporter(debug=False))
    assert environment == {"BUS_ENV_FILE": os.devnull}


def test_the_names_are_printed_except_by_health_and_run(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(f"BUS_URL={URL}\nBUS_KEY=secret\n")
    for command in ("health", "run"):
        prepare_environment({}, [command], Reporter(debug=False))
    assert capsys.readouterr() == ("", "")
    prepare_environment({}, ["queues"], Reporter(debug=False))
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0]) == ("", "settings from .env: BUS_URL")
    assert f"export BUS_ENV_FILE={file}" in err.splitlines()[1]
    assert "secret" not in err


def test_an_invalid_file_ends_a_command_and_not_the_help_or_a_completion(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("BUS_URL\n")
    with pytest.raises(SystemExit) as ended:
        prepare_environment({}, ["queues"], Reporter(debug=False))
    assert ended.value.code == os.EX_CONFIG
    assert capsys.readouterr().err.startswith("error: .env: line 1 is invalid.")
    for environment, arguments in (
        ({}, ["queues", "--help"]),
        ({}, ["--version"]),
        ({}, []),
        ({"_BUS_COMPLETE": "complete_bash", "COMP_WORDS": "bus call "}, ["queues"]),
    ):
        prepare_environment(environment, arguments, Reporter(debug=False))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("blank", ["", " ", "\r\n"])
def test_an_empty_variable_of_an_option_is_not_set(blank: str, file: Path) -> None:
    app, environment = typer.Typer(), {"BUS_CONTRACTS": blank, "BUS_GRANTS": blank}
    prepare_environment(environment, ["health"], Reporter(debug=False))
    assert {environment["BUS_CONTRACTS"], environment["BUS_GRANTS"]} == {""}

    @app.command()
    def show(grants: str = typer.Option("none", envvar="BUS_GRANTS")) -> None:
        typer.echo(grants)

    assert CliRunner().invoke(app, env=environment).output == "none\n"


def test_space_around_the_variable_of_an_option_does_not_count(file: Path) -> None:
    environment = {"BUS_GRANTS": " grants.toml\r\n"}
    prepare_environment(environment, ["health"], Reporter(debug=False))
    assert environment["BUS_GRANTS"] == "grants.toml"


def python(file: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in the directory of the file, without the variables of this process."""
    inherited = {name: v for name, v in os.environ.items() if not name.startswith("BUS_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=file.parent,
        env={**inherited, "COLUMNS": "300", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


READ = "from bus.settings import load_settings; print(load_settings().heartbeat)"


def test_the_library_never_reads_the_file(file: Path) -> None:
    file.write_text("BUS_HEARTBEAT=5")
    assert python(file, "-c", READ, BUS_ENV_FILE=str(file)).stdout == "10\n"


def test_the_doctor_shows_the_file_its_names_and_misspelled_ones(file: Path) -> None:
    file.write_text("BUS_HEARTBAET=5\nBUS_KEY=secret\nSHOP_ROOMS=[]\n")
    shown = python(file, "-m", "bus.cli", "doctor", "--json", BUS_URL="amqp://localhost:1")
    report = json.loads(shown.stdout)
    assert report["env_file"]["taken"] == ["BUS_HEARTBAET"]
    assert report["env_file"]["refused"] == ["BUS_KEY"]
    (described,) = report["unknown"]
    assert described.startswith("BUS_HEARTBAET is not a setting of the bus, so the bus ignores it")
    assert described.endswith("; did you mean BUS_HEARTBEAT?")
    assert "secret" not in shown.stdout + shown.stderr


def test_a_worker_logs_the_names_and_warns_of_misspelled_ones(file: Path) -> None:
    file.write_text("BUS_URL=amqp://localhost:1\nBUS_HEARTBAET=5\nBUS_AUTH=dev\n")
    (file.parent / "till.py").write_text('from bus import Router\nrouter = Router("till")\n')
    ended = python(
        *(file, "-m", "bus.cli", "run", "till:router"), BUS_AUTH="off", BUS_CONNECT_TIMEOUT="0.2"
    )
    records = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    logged = {record["event"]: record["level"] for record in records}
    assert logged["settings from .env: BUS_URL, BUS_HEARTBAET"] == "info"
    described = "BUS_HEARTBAET is not a setting of the bus, so the bus ignores it"
    assert logged[f"{described}; did you mean BUS_HEARTBEAT?"] == "warning"


@pytest.fixture(params=[{"log_level": "error"}, {"log_format": "none"}])
def quiet(
    request: pytest.FixtureRequest, file: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Return settings of the log that hide warnings. A named file sets them, and other names."""
    ((field, value),) = request.param.items()
    file.write_text(f"BUS_{field.upper()}={value}\nBUS_AUTH=off\nPATH=/evil\n")
    _, variables = load(BUS_ENV_FILE=str(file))
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    return dict(request.param)


def test_a_worker_prints_the_names_that_its_named_file_hides_from_the_log(
    quiet: dict[str, Any],
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUS_HEARTBAET", "5")
    log_environment(Settings(auth="off", **quiet))
    told = capsys.readouterr().err.splitlines()
    name = f"BUS_{next(iter(quiet)).upper()}"
    assert f"bus run: settings from {file}: {name}, BUS_AUTH" in told
    assert any("does not set PATH: only the environment" in line for line in told)
    assert any("BUS_HEARTBAET is not a setting" in line for line in told)
    assert any("BUS_AUTH=off: messages are neither signed" in line for line in told)


@pytest.mark.usefixtures("quiet")
def test_the_parent_of_several_workers_warns_that_messages_are_not_signed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run_none(_: object) -> int:
        return 0

    monkeypatch.setattr(run, "run_processes", run_none)
    with pytest.raises(typer.Exit):
        run.command(["till:router"], processes=2)
    assert "bus run: BUS_AUTH=off: messages are neither signed" in capsys.readouterr().err


def test_a_level_of_the_environment_prints_nothing_more(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(f"BUS_URL={URL}")
    load()
    log_environment(Settings(auth="off", log_level="error"))
    assert capsys.readouterr().err == ""


def test_the_variable_is_removed_where_it_is_set(file: Path) -> None:
    file.write_text(f"BUS_URL={URL}")
    load()
    assert describe_removal("BUS_URL") == "Remove BUS_URL from .env"
    load(BUS_URL=URL)
    assert describe_removal("BUS_URL") == "Unset BUS_URL"


def test_help_and_completion_see_the_variables(file: Path) -> None:
    file.write_text("BUS_CONTRACTS=shop.contracts")
    for given, arguments in (({}, ["call", "--help"]), ({"_BUS_COMPLETE": "complete_zsh"}, [])):
        environment: dict[str, str] = dict(given)
        prepare_environment(environment, arguments, Reporter(debug=False))
        assert environment["BUS_CONTRACTS"] == "shop.contracts"


def test_one_name_of_the_variable_is_used() -> None:
    assert ENV_FILE == VARIABLE
    assert VARIABLE in OTHER_VARIABLES
