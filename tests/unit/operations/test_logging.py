import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from bus.messaging.context import Context, handling
from bus.operations.logging import configure_logging
from bus.settings import load_settings
from tests.unit.fakes import NoSender, envelope, raised


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Yield a stream for the log records, and restore the process's logging afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("aio_pika", "aiormq", "asyncio")}
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


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
        "payload revealed\x1b[A", extra={"type": "a\x1b[2K\x1b]0;b\x07", "queue": "c\x9b2J"}
    )
    assert "payload revealed" in stream.getvalue()
    assert not [
        each
        for each in stream.getvalue()
        if (each < " " and each != "\n") or "\x7f" <= each <= "\x9f"
    ]


def test_the_libraries_below_stay_quiet(stream: io.StringIO) -> None:
    configure_logging(load_settings(log_format="json", log_level="debug"), stream=stream)
    logging.getLogger("aiormq.connection").warning("frames")
    assert stream.getvalue() == ""


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
