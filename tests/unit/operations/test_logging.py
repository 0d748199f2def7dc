import asyncio
import io
import json
import logging
import logging.config
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from typing_extensions import override

from bus import MessageContextFilter
from bus.messaging.context import Context, correlated, handling
from bus.operations.logging import configure_logging
from bus.settings import load_settings
from tests.unit.fakes import NoSender, envelope, raised
from tests.unit.logging_state import restored_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Yield a stream for the log records, and restore the process's logging afterwards."""
    with restored_logging():
        yield io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the lines, which must be JSON. NaN and Infinity are not JSON."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in stream.getvalue().splitlines()]


def test_every_line_is_json_whoever_wrote_it(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="json"), stream=stream)
    logging.getLogger("theirs").warning("about %s", "that", extra={"queue": "q"})
    structlog.stdlib.get_logger("ours").info("done", count=3, nothing=None)
    theirs, ours = lines(stream)
    assert (theirs["event"], theirs["level"], theirs["logger"], theirs["queue"]) == (
        "about that",
        "warning",
        "theirs",
        "q",
    )
    assert (ours["event"], ours["count"], ours["logger"]) == ("done", 3, "ours")
    assert "nothing" not in ours
    assert theirs["timestamp"].endswith("Z")


def test_a_users_line_carries_the_ids_of_what_is_handled(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="json"), stream=stream)
    with handling(Context(envelope=envelope(), bus=NoSender())):
        logging.getLogger("theirs").info("inside")
        logging.getLogger("theirs").info("of another", extra={"correlation_id": "c-2"})
    logging.getLogger("theirs").info("outside")
    inside, other, outside = lines(stream)
    assert (inside["correlation_id"], inside["message_id"]) == ("c-1", "m-1")
    assert other["correlation_id"] == "c-2"
    assert "correlation_id" not in outside


def test_what_is_below_the_level_is_not_written(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="json", log_level="warning"), stream=stream)
    logging.getLogger("theirs").info("no")
    structlog.stdlib.get_logger("ours").info("no")
    assert stream.getvalue() == ""


def test_a_terminal_gets_readable_lines(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="console"), stream=stream)
    logging.getLogger("theirs").info("readable")
    assert "readable" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_what_others_sent_does_not_steer_a_terminal(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="console"), stream=stream)
    logging.getLogger("bus.audit").info(
        "payload revealed\x1b[A\ud800", extra={"type": "a\x1b[2K\x1b]0;b\x07", "queue": "c\x9b2J"}
    )
    assert "payload revealed" in stream.getvalue()
    assert not [
        each
        for each in stream.getvalue()
        if (each < " " and each != "\n") or "\x7f" <= each <= "\x9f"
    ]
    assert stream.getvalue().encode()


HOSTILE = "\u202etxt\x7f\u2028\U000e0041\ud800 \u200bend"
SHOWN = "\\u202etxt\\u007f\\u2028\\U000e0041\\ud800 \\u200bend"


class Shouting:
    """A value of an application that writes another service's text into its `repr`."""

    @override
    def __repr__(self) -> str:
        return f"<{HOSTILE}>"


def test_a_terminal_shows_the_codes_of_unsafe_characters_in_texts_names_and_values(
    stream: io.StringIO,
) -> None:
    configure_logging(load_settings(log_format="console"), stream=stream)
    facts = {"note": HOSTILE, HOSTILE: 1, "value": Shouting(), "many": [Shouting()]}
    logging.getLogger("theirs").info(HOSTILE, extra=facts)
    line = stream.getvalue().removesuffix("\n")
    assert line.isprintable()
    assert not {*HOSTILE} & {*line} - {*"txt end"}
    assert f"[info     ] {SHOWN}" in line
    assert f"value=<{SHOWN}>" in line


def test_a_line_of_json_is_safe_on_a_terminal_and_keeps_the_text(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="json"), stream=stream)
    logging.getLogger("theirs").info("%s", HOSTILE, extra={"note": HOSTILE, "value": Shouting()})
    text = stream.getvalue().removesuffix("\n")
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["note"] == HOSTILE


def test_the_libraries_below_stay_quiet(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="json", log_level="debug"), stream=stream)
    logging.getLogger("aiormq.connection").warning("frames")
    assert stream.getvalue() == ""


# --- Fields of a user ---

OWN = {
    "event": "theirs",
    "level": "info",
    "logger": "root",
    "timestamp": "yesterday",
    "exception": "none",
}


def test_an_extra_of_a_user_never_replaces_the_records_own_field(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="json"), stream=stream)
    try:
        int("gone")
    except ValueError:
        logging.getLogger("theirs").exception("lost", extra=OWN)
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("lost", "error", "theirs")
    assert line["timestamp"].endswith("Z")
    assert "ValueError: invalid literal" in line["exception"]
    assert {f"extra_{name}": value for name, value in OWN.items()}.items() <= line.items()


@pytest.mark.parametrize("value", [5, "abc", {"a": 1}, ["a"]], ids=repr)
@pytest.mark.parametrize("name", ["frames", "stack", "logger_name"])
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_field_of_a_user_with_a_name_that_structlog_uses_is_shown(
    stream: io.StringIO, log_format: str, name: str, value: object
) -> None:
    configure_logging(load_settings(log_format=log_format), stream=stream)
    logging.getLogger("theirs").info("about %s", "that", extra={name: value, "count": 3})
    structlog.stdlib.get_logger("ours").info("done", **{name: value, "count": 3})
    theirs, ours = stream.getvalue().splitlines()
    for line in (theirs, ours):
        assert "format_error" not in line
        assert name in line
        assert (json.dumps(value) if log_format == "json" else str(value)) in line
        assert "count" in line
    assert "about that" in theirs


def test_a_record_whose_arguments_do_not_fit_keeps_its_fields(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="json"), stream=stream)
    logging.getLogger("theirs").info("%d of %d", 1, extra={"queue": "q", "stack": "st"})
    (line,) = lines(stream)
    assert (line["format_error"], line["queue"], line["extra_stack"]) == ("TypeError", "q", "st")


def test_keys_that_are_equal_as_text_keep_both_values(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="json"), stream=stream)
    data = {1: "a", "1": "b", "1 (int)": "c", None: "d", "None": "e"}
    logging.getLogger("theirs").info("counted", extra={"data": [data]})
    (line,) = lines(stream)
    assert sorted(line["data"][0].values()) == ["a", "b", "c", "d", "e"]
    assert line["data"][0]["1"] == "b"


def test_a_record_without_a_name_is_filtered_and_written(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="json"), stream=stream)
    record = logging.makeLogRecord({"msg": "x", "levelno": 20, "levelname": "INFO"})
    assert MessageContextFilter().filter(record)
    logging.getLogger().handle(record)
    assert lines(stream)[0]["event"] == "x"


def test_a_field_of_structlog_never_replaces_the_records_own_field(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="json"), stream=stream)
    structlog.contextvars.bind_contextvars(logger="bound", timestamp="bound")
    try:
        structlog.stdlib.get_logger("ours").warning("low", level="flood", _record="a", river="Elbe")
    finally:
        structlog.contextvars.clear_contextvars()
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("low", "warning", "ours")
    assert line["timestamp"].endswith("Z")
    assert (line["extra_level"], line["extra_logger"], line["extra_timestamp"]) == (
        "flood",
        "bound",
        "bound",
    )
    assert (line["extra__record"], line["river"]) == ("a", "Elbe")


def test_a_variable_that_a_user_bound_is_in_the_lines_of_the_standard_library(
    stream: io.StringIO,
) -> None:
    configure_logging(load_settings(log_format="json"), stream=stream)
    structlog.contextvars.bind_contextvars(tenant="north", level="bound")
    try:
        logging.getLogger("theirs").info("said")
    finally:
        structlog.contextvars.clear_contextvars()
    (line,) = lines(stream)
    assert (line["tenant"], line["level"], line["extra_level"]) == ("north", "info", "bound")


class Unprintable:
    @override
    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Elusive:
    """A value that raises whatever is read of it, like an unbound proxy."""

    @override
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("no object is bound")

    @override
    def __repr__(self) -> str:
        raise RuntimeError("no object is bound")


CIRCLE: dict[str, Any] = {"name": "circle"}
CIRCLE["inside"] = [CIRCLE]
DEEP: list[Any] = []
for _ in range(200_000):  # newer Pythons take longer to give up
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (math.nan, "NaN"),
        ([math.inf, {"low": -math.inf}], ["Infinity", {"low": "-Infinity"}]),
        ({("a", 1): 2, "b": 3}, {"('a', 1)": 2, "b": 3}),
        ({math.nan: 1}, {"nan": 1}),
        ({1: "one"}, {"1": "one"}),
        ({7}, [7]),
        ({"ids": frozenset({math.inf})}, {"ids": ["Infinity"]}),
        (b"\xff\x00", "b'\\xff\\x00'"),
        (Unprintable(), "<Unprintable, whose repr raises an exception>"),
        ({Unprintable(): 1}, {"<Unprintable, whose repr raises an exception>": 1}),
        (Elusive(), "<Elusive, whose repr raises an exception>"),
        (CIRCLE, {"name": "circle", "inside": ["<dict that contains itself>"]}),
        (1 << 20_000, "<integer of 20001 bits>"),
        ("\ud800", "\ud800"),
    ],
    ids=str.split(
        "nan infinity tuple-key nan-key int-key set frozenset bytes repr-raises key-raises"
        " class-raises circle huge-integer surrogate"
    ),
)
def test_a_value_that_json_cannot_express_does_not_lose_the_line(
    value: object, written: object, stream: io.StringIO
) -> None:
    configure_logging(load_settings(log_format="json"), stream=stream)
    logging.getLogger("theirs").info("kept", extra={"value": value, "other": 1})
    structlog.stdlib.get_logger("ours").info("kept", value=value, other=1)
    for line in lines(stream):
        assert (line["event"], line["value"], line["other"]) == ("kept", written, 1)
    assert len(lines(stream)) == 2


def test_data_that_is_too_deep_does_not_lose_the_line(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="json"), stream=stream)
    logging.getLogger("theirs").info("kept", extra={"value": DEEP})
    assert lines(stream)[0]["event"] == "kept"
    assert "<list below 20 levels>" in stream.getvalue()


def test_a_value_without_a_text_does_not_lose_the_line_on_a_terminal(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="console"), stream=stream)
    logging.getLogger("theirs").info("kept", extra={"value": Unprintable()})
    assert "kept" in stream.getvalue()
    assert "whose repr raises an exception" in stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_arguments_that_do_not_fit_the_text_do_not_lose_the_line(
    log_format: str, stream: io.StringIO
) -> None:
    configure_logging(load_settings(log_format=log_format), stream=stream)
    logging.getLogger("theirs").warning("%d books", "many")
    assert "%d books" in stream.getvalue()
    assert "TypeError" in stream.getvalue()


# --- The application's own logging ---


def test_an_applications_own_handler_level_and_structlog_stay(stream: io.StringIO) -> None:
    logging.basicConfig(stream=stream, format="own %(message)s", level="WARNING", force=True)
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
    before = logging.getLogger().handlers[:]
    configure_logging(load_settings(log_format="json", log_level="debug"), overwrite=False)
    logging.getLogger("bus.messages").warning("said")
    assert stream.getvalue() == "own said\n"
    assert (logging.getLogger().handlers, logging.getLogger().level) == (before, logging.WARNING)
    assert logging.getLogger("aiormq").level == logging.NOTSET
    (renderer,) = structlog.get_config()["processors"]
    assert isinstance(renderer, structlog.processors.KeyValueRenderer)


def test_without_a_handler_logging_is_configured_and_a_users_structlog_stays(
    stream: io.StringIO,
) -> None:
    logging.getLogger().handlers.clear()
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
    configure_logging(load_settings(log_format="json"), stream=stream, overwrite=False)
    logging.getLogger("theirs").info("said")
    assert lines(stream)[0]["event"] == "said"
    assert len(structlog.get_config()["processors"]) == 1


def test_a_configuration_of_the_application_that_comes_later_replaces_that_of_the_bus(
    stream: io.StringIO,
) -> None:
    logging.getLogger().handlers.clear()
    configure_logging(load_settings(log_format="json"), stream=io.StringIO(), overwrite=False)
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"message": {"()": "bus.MessageContextFilter"}},
            "formatters": {"own": {"format": "own %(correlation_id)s %(message)s"}},
            "handlers": {
                "own": {
                    "class": "logging.StreamHandler",
                    "stream": stream,
                    "formatter": "own",
                    "filters": ["message"],
                }
            },
            "root": {"level": "INFO", "handlers": ["own"]},
        }
    )
    with handling(Context(envelope=envelope(), bus=NoSender())):
        logging.getLogger("bus.messages").info("said")
    assert stream.getvalue() == "own c-1 said\n"


@pytest.mark.parametrize("overwrite", [True, False])
def test_the_format_none_leaves_logging_alone(stream: io.StringIO, *, overwrite: bool) -> None:
    root = logging.getLogger()
    root.handlers.clear()
    before = root.level
    configure_logging(load_settings(log_format="none"), stream=stream, overwrite=overwrite)
    assert (root.handlers, root.level) == ([], before)
    assert not structlog.is_configured()


# --- The filter ---

FORMAT = "%(correlation_id)s|%(causation_id)s|%(message_id)s|%(message_type)s|%(message)s"


@pytest.fixture
def own(stream: io.StringIO) -> logging.Logger:
    """Return a logger of an application whose formatter requires the fields of the filter."""
    handler = logging.StreamHandler(stream)
    handler.addFilter(MessageContextFilter())
    handler.setFormatter(logging.Formatter(FORMAT))
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger().setLevel(logging.INFO)
    return logging.getLogger("own.part")


def test_the_filter_adds_the_ids_and_the_type_of_the_handled_message(
    own: logging.Logger, stream: io.StringIO
) -> None:
    with handling(Context(envelope=envelope(causation_id="m-0"), bus=NoSender())):
        own.info("said")
    assert stream.getvalue() == "c-1|m-0|m-1|ledger.add.v1|said\n"


def test_outside_of_a_handler_the_fields_of_the_filter_are_empty(
    own: logging.Logger, stream: io.StringIO
) -> None:
    own.info("said")
    with correlated("c-7"):
        own.info("sent")
    assert stream.getvalue() == "||||said\nc-7||||sent\n"


def test_the_filter_knows_the_message_in_a_task_and_in_a_thread_of_the_handler(
    own: logging.Logger, stream: io.StringIO
) -> None:
    async def handle() -> None:
        with handling(Context(envelope=envelope(), bus=NoSender())):
            await asyncio.create_task(asyncio.to_thread(own.info, "said"))

    asyncio.run(handle())
    assert stream.getvalue() == "c-1||m-1|ledger.add.v1|said\n"


def test_the_filter_keeps_the_fields_of_a_record_about_another_message(
    own: logging.Logger, stream: io.StringIO
) -> None:
    with handling(Context(envelope=envelope(), bus=NoSender())):
        own.info("said", extra={"message_id": "m-9"})
    facts = {"type": "ledger.close.v1", "message_id": "m-2", "correlation_id": "c-2"}
    logging.getLogger("bus.settlement").error("dead", extra=facts)
    own.info("said", extra={"type": "a value of the user"})
    assert stream.getvalue().splitlines() == [
        "c-1||m-9|ledger.add.v1|said",
        "c-2||m-2|ledger.close.v1|dead",
        "||||said",
    ]


def test_a_line_of_the_bus_has_the_ids_of_its_cause_too(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="json"), stream=stream)
    with handling(Context(envelope=envelope(causation_id="m-0"), bus=NoSender())):
        logging.getLogger("theirs").info("inside")
    with correlated("c-7"):
        logging.getLogger("theirs").info("sent")
    inside, sent = lines(stream)
    assert (inside["causation_id"], inside["message_type"]) == ("m-0", "ledger.add.v1")
    assert sent["correlation_id"] == "c-7"


def test_the_configuration_on_the_page_about_logging_works(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parents[3] / "docs/how-to/configure-logging.md"
    (code,) = re.findall(r"```python .*?\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    configuration = code.replace("from library import router\n", "")  # its service
    exec(compile(configuration, str(page), "exec"))
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    with handling(Context(envelope=envelope(), bus=NoSender())):
        logging.getLogger("theirs").info("said")
    assert stream.getvalue().endswith(" INFO [c-1] said\n")


# --- Frames of failures ---

FRAMES = ["bus/runtime/router.py:289 Router.__call__", "billing/service.py:43 quote"]


def test_json_has_all_frames_of_a_failure(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="json"), stream=stream)
    logging.getLogger("bus.messages").error("failed", extra={"frames": FRAMES})
    assert lines(stream)[0]["frames"] == FRAMES


@pytest.mark.parametrize(("all_frames", "shown"), [(False, FRAMES[1:]), (True, FRAMES)])
def test_a_terminal_gets_each_frame_on_a_line_of_its_own(
    all_frames: bool, shown: list[str], stream: io.StringIO
) -> None:
    configure_logging(load_settings(log_format="console"), stream=stream, all_frames=all_frames)
    logging.getLogger("bus.messages").error("failed", extra={"frames": FRAMES})
    first, *others = stream.getvalue().splitlines()
    assert "failed" in first
    assert others == [f"    {frame}" for frame in shown]


def test_a_failure_inside_the_bus_alone_shows_the_frames_of_the_bus(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="console"), stream=stream)
    logging.getLogger("bus.receiver").error("failed", extra={"frames": FRAMES[:1]})
    assert stream.getvalue().splitlines()[1:] == [f"    {FRAMES[0]}"]


def test_a_terminal_shows_no_frames_of_the_library_that_calls_dependencies(
    stream: io.StringIO,
) -> None:
    configure_logging(load_settings(log_format="console"), stream=stream)
    frames = [FRAMES[0], "fast_depends/use.py:166 inject.<lambda>", FRAMES[1]]
    logging.getLogger("bus.messages").info("failed", extra={"frames": frames})
    assert stream.getvalue().splitlines()[1:] == [f"    {FRAMES[1]}"]


@pytest.mark.parametrize("all_frames", [False, True])
def test_the_dead_letter_of_a_failed_job_does_not_repeat_its_frames_on_a_terminal(
    all_frames: bool, stream: io.StringIO
) -> None:
    configure_logging(load_settings(log_format="console"), stream=stream, all_frames=all_frames)
    facts = {"message_id": "a067102e", "frames": FRAMES}
    for text in ("failed", "failed in attempt 2"):
        logging.getLogger("bus.messages").error(text, extra=facts)
    # The error has passed through more functions of the bus.
    outer = ["bus/runtime/receiver.py:70 Receiver.handle", *FRAMES]
    logging.getLogger("bus.settlement").error("dead-lettered", extra={**facts, "frames": outer})
    shown = [line.strip() for line in stream.getvalue().splitlines() if line.startswith("    ")]
    assert shown == (FRAMES if all_frames else FRAMES[1:]) * 2


@pytest.mark.parametrize(
    "other", [{"message_id": "b177203f"}, {"frames": ["billing/tax.py:9 tax"]}]
)
def test_a_dead_letter_has_its_frames_on_a_terminal_if_no_line_showed_them(
    other: dict[str, object], stream: io.StringIO
) -> None:
    configure_logging(load_settings(log_format="console"), stream=stream)
    facts = {"message_id": "a067102e", "frames": FRAMES}
    logging.getLogger("bus.messages").error("failed", extra={**facts, **other})
    logging.getLogger("bus.settlement").error("dead-lettered", extra=facts)
    assert stream.getvalue().splitlines()[-1] == f"    {FRAMES[1]}"


def test_json_has_the_frames_of_a_failure_in_the_line_of_its_dead_letter_too(
    stream: io.StringIO,
) -> None:
    configure_logging(load_settings(log_format="json"), stream=stream)
    facts = {"message_id": "a067102e", "frames": FRAMES}
    logging.getLogger("bus.messages").error("failed", extra=facts)
    logging.getLogger("bus.settlement").error("dead-lettered", extra=facts)
    assert [line["frames"] for line in lines(stream)] == [FRAMES] * 2


@pytest.mark.parametrize("frames", [24, ["bus/stop.jpg", "2.jpg"]])
def test_the_field_frames_of_an_application_is_a_field_like_any_other(
    frames: object, stream: io.StringIO
) -> None:
    configure_logging(load_settings(log_format="console"), stream=stream)
    logging.getLogger("video").info("decoded", extra={"frames": frames})
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(f"frames={frames}")


def test_a_terminal_gets_a_traceback_instead_of_its_frames_and_no_control_characters(
    stream: io.StringIO,
) -> None:
    configure_logging(load_settings(log_format="console"), stream=stream)
    error = raised(KeyError("a\x1b[2K\x9b"))
    logging.getLogger("bus.messages").error("failed", extra={"frames": FRAMES}, exc_info=error)
    text = stream.getvalue()
    assert "KeyError" in text
    assert FRAMES[1] not in text
    assert "\x1b" not in text
    assert "\x9b" not in text


def test_json_has_a_traceback_that_was_logged(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="json"), stream=stream)
    logging.getLogger("bus.messages").error("failed", exc_info=raised(KeyError("text")))
    assert lines(stream)[0]["exception"].splitlines()[-1] == "KeyError: 'text'"
