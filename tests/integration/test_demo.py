"""Tests of `bus demo` and of its error messages for wrong arguments."""

import asyncio
import os
import re
import signal
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import pytest
from pydantic import SecretStr
from pypdf import PdfReader

from bus import Bus, Settings
from bus.messaging.ports.transport import Accepted
from bus.messaging.topology.addresses import dead_letter_address
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.installation import Installation
from contracts.transcription.v1 import TranscriptCompleted
from tests.broker import fresh_vhost
from tests.integration.command import PATIENT, ROOT, Ended, bus, ended, running
from tests.polling import until
from tests.speech import needs_speech
from tests.unit.fakes import envelope
from tests.unit.workers.transcription.recordings import last_sentence
from workers.demo.keys import DemoKeys
from workers.demo.stage import RabbitMQStage, served
from workers.demo.story import WORK_QUEUE
from workers.demo.subscribers import subscribers

pytestmark = needs_speech

WORDS = (ROOT / "examples/data/dictation.txt").read_text().split()


def test_the_recordings_words_come_out(shown: Ended) -> None:
    said = " ".join(re.findall(r"^ +[\d.]+ s - +[\d.]+ s  (.*)$", shown.out, re.MULTILINE)).split()
    wrong = sum(1 for word in WORDS if word not in said) + abs(len(said) - len(WORDS))

    assert wrong <= 4, f"{said}"


def test_every_step_is_on_one_correlation_id(shown: Ended) -> None:
    short = re.findall(r"│ ([0-9a-f]{8}) ", shown.out)
    full = re.search(r"correlation id ([0-9a-f]{8})-", shown.out)

    assert full is not None
    assert short == [full.group(1)] * 14


def test_the_documents_lie_where_it_says_and_say_what_was_said(shown: Ended) -> None:
    pdf, docx = re.findall(r"^  (?:PDF|DOCX) +\d+ kB.* file://(\S+)$", shown.out, re.MULTILINE)

    assert Path(docx).read_bytes().startswith(b"PK")
    text = PdfReader(pdf).pages[0].extract_text()
    said = [
        re.search(rf"\n{heading}\n(.+)\n", text)
        for heading in ("Subjective", "Objective", "Assessment", "Plan")
    ]
    assert [len(set(found[1].split()) & set(WORDS)) > 3 for found in said if found] == [True] * 4


def test_the_events_reach_their_subscriptions_and_the_invalid_job_is_a_failed_row(
    shown: Ended,
) -> None:
    assert "event for index" in shown.out
    assert "event for notify" in shown.out
    assert "event for archive" in shown.out
    assert re.search(r"state +failed\n +code +invalid_argument", shown.out)
    assert re.search(
        r"reason +transcription.transcribe.v1 .*audio_url: must be a string", shown.out
    )


def test_a_running_job_is_cancelled(shown: Ended) -> None:
    assert re.search(r"cancel a running job: cancelled at \d+%", shown.out)


def test_another_process_gets_the_result_after_the_worker_was_killed_and_started_again(
    shown: Ended,
) -> None:
    steps = re.findall(r"^done +(.+?):", shown.out, re.MULTILINE)
    first = steps.index("kill the worker (SIGKILL)")
    assert steps[first + 1 : first + 3] == ["start the worker again", "ask in another process"]


async def test_it_plays_with_workers_that_run_at_a_broker_that_keeps_what_was(
    workers_url: str, sentence: str
) -> None:
    settings = Settings(url=SecretStr(workers_url))
    async with Bus("demo", settings=settings) as demo:
        for _, topology in subscribers("earlier")[0].topology().values():
            await demo._transport.declare(topology)
        async with Bus("transcription", settings=settings) as earlier:
            await earlier.publish(TranscriptCompleted(transcript_id=uuid4(), duration=1, words=1))
        letters = [
            envelope("transcription.transcribe.v1", role="job", id=f"earlier-{number}")
            for number in range(101)
        ]
        dead = dead_letter_address(WORK_QUEUE)
        sent = await asyncio.gather(
            *(demo._transport.send(letter, dead, timeout=30) for letter in letters)
        )
        assert set(sent) == {Accepted()}

        answer = await bus("demo", "--against-running", sentence, BUS_URL=workers_url)

    assert answer.code == 0, answer.err
    assert "start the workers: those that run at this broker" in answer.out
    assert len({*re.findall(r"│ ([0-9a-f]{8}) ", answer.out)}) == 1


async def test_a_worker_that_runs_needs_a_broker_that_runs() -> None:
    _is_one_line(await bus("demo", "--against-running", BUS_URL=""), code=78, about="Set BUS_URL")


def test_it_runs_in_memory_where_nothing_else_can_be_had(in_memory: Ended) -> None:
    assert in_memory.code == 0, in_memory.err
    assert "failed job in the store: invalid_argument" in in_memory.out
    assert "cancel a running job: " in in_memory.out
    assert len(re.findall(r"file://\S+\.(?:pdf|docx)$", in_memory.out, re.MULTILINE)) == 2


async def test_a_missing_file_is_told_at_once(vhost_url: str) -> None:
    _is_one_line(await bus("demo", "nowhere.wav", BUS_URL=vhost_url), code=66, about="nowhere.wav")


def _text(path: Path) -> None:
    path.write_text("not a recording")


def _nothing(path: Path) -> None:
    path.touch()


def _silent_nothing(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))


@pytest.mark.parametrize(
    "make", [_text, _nothing, _silent_nothing], ids=["not a WAV", "empty", "no sound"]
)
async def test_what_is_no_recording_is_told_in_a_line(
    workers_url: str, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "recording.wav")

    answer = await bus(
        "demo", "--against-running", str(tmp_path / "recording.wav"), BUS_URL=workers_url
    )

    _is_one_line(answer, code=65, about="")


async def test_a_recording_over_the_limit_is_told_in_a_line(vhost_url: str) -> None:
    answer = await bus("demo", BUS_URL=vhost_url, TRANSCRIPTION_MAX_BYTES="1000")

    _is_one_line(answer, code=65, about="TRANSCRIPTION_MAX_BYTES")


async def test_a_worker_that_is_set_up_wrongly_is_told_in_a_line(vhost_url: str) -> None:
    _is_one_line(
        await bus("demo", BUS_URL=vhost_url, DOCUMENTS_TIMEZONE="Mars"),
        code=69,
        about="DOCUMENTS_TIMEZONE",
    )


async def test_an_address_that_nobody_answers_is_told_in_a_line(workers_url: str) -> None:
    _is_one_line(
        await bus("demo", "--against-running", "http://127.0.0.1:1/a.wav", BUS_URL=workers_url),
        code=69,
        about="127.0.0.1",
    )


async def test_a_broker_that_is_down_is_told_in_a_line() -> None:
    _is_one_line(
        await bus("demo", BUS_URL="amqp://guest:guest@127.0.0.1:1/", BUS_CONNECT_TIMEOUT="1"),
        code=69,
        about="127.0.0.1:1",
    )


async def test_credentials_that_the_broker_refuses_are_told_in_a_line(broker: str) -> None:
    parts = urlsplit(broker)
    wrong = urlunsplit(parts._replace(netloc=f"nobody:wrong@{parts.hostname}:{parts.port}"))

    _is_one_line(await bus("demo", BUS_URL=wrong), code=77, about="refused the credentials")


async def test_with_debug_the_traceback_is_shown() -> None:
    answer = await bus(
        "--debug", "demo", BUS_URL="amqp://guest:guest@127.0.0.1:1/", BUS_CONNECT_TIMEOUT="1"
    )

    assert "Traceback" in answer.err


async def test_interrupting_it_ends_it(vhost_url: str) -> None:
    async with running("demo", BUS_URL=vhost_url) as process:
        assert process.stdout is not None
        async with asyncio.timeout(150):
            while b"start the workers" not in (line := await process.stdout.readline()):
                assert line, "it ended before its workers had started"
        process.terminate()
        answer = await ended(process)

    assert answer.code == 130
    assert "Traceback" not in answer.err


async def test_a_worker_that_is_killed_ends_it_in_a_line_within_seconds(vhost_url: str) -> None:
    async with running("demo", BUS_URL=vhost_url) as process:
        # The subject waits for its result: without the worker, that took 300 s.
        line = await _said(process, "start the workers")
        workers = [int(number) for number in re.findall(r"(\d+) \(\w+\)", line)]
        await _said(process, "submit the recording")
        os.kill(workers[0], signal.SIGKILL)
        answer = await ended(process, 30)

    _is_one_line(answer, code=69, about="workers.transcription:router was ended by the signal SIG")
    assert len(workers) == 2
    assert not any(map(_runs, workers))


async def test_a_broker_that_is_killed_ends_it_in_a_line_within_seconds(
    installation: Installation,
) -> None:
    async with running("demo", BUS_URL="") as process:
        await _said(process, "broker ")
        children = _descendants(process.pid)
        (node,) = [child for child in children if _name(child) == "beam.smp"]
        os.kill(node, signal.SIGKILL)
        answer = await ended(process, 30)

    _is_one_line(answer, code=69, about="has stopped unexpectedly. Run the command again.")
    # Erlang's own helper processes notice a moment later that their node has ended.
    await until(lambda: not any(map(_runs, children)), "the processes of the demo to end")


async def _said(process: asyncio.subprocess.Process, what: str) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(150):
        while what not in (line := (await process.stdout.readline()).decode()):
            assert line, f"it ended, and did not say {what}"
    return line


def _descendants(pid: int) -> list[int]:
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return []
    return [each for child in map(int, found) for each in (child, *_descendants(child))]


def _runs(pid: int) -> bool:
    """Return True if a process has not ended. An ended one can wait for its parent to notice."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


@pytest.fixture(autouse=True)
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the generated documents out of the repository's folder."""
    monkeypatch.setenv("DOCUMENTS_FOLDER", str(tmp_path / "documents"))


@pytest.fixture(scope="module")
def shown(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Run the demonstration once, on the shared broker."""
    answer = asyncio.run(
        bus("demo", BUS_URL=broker, DOCUMENTS_FOLDER=str(tmp_path_factory.mktemp("documents")))
    )
    assert answer.code == 0, answer.err
    return answer


@pytest.fixture(scope="module")
def workers_url(shared_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start both workers once in a virtual host, for tests that are not about their start.

    Each worker loads two models, which takes seconds of processor time.
    """
    with (
        fresh_vhost(shared_broker) as url,
        asyncio.Runner() as runner,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in {
            **PATIENT,
            "BUS_CONNECT_TIMEOUT": "30",
            "TRANSCRIPTION_HOSTS": '["127.0.0.1"]',  # special addresses are refused by default
            "DOCUMENTS_FOLDER": str(tmp_path_factory.mktemp("documents")),
        }.items():
            patch.setenv(name, value)
        stage = RabbitMQStage(url, cast(DemoKeys, Unsigned()))
        workers = stage.workers()
        runner.run(workers.__aenter__())
        try:
            runner.run(_answering(stage))
            yield url
        finally:
            runner.run(workers.__aexit__(None, None, None))


class Unsigned:
    """A fake of `DemoKeys` without keys, because the commands in the tests have no keys."""

    def environment(self, service: str) -> dict[str, str]:
        return {"BUS_AUTH": "off"}

    def settings(self, service: str) -> dict[str, str]:
        return {"auth": "off"}


async def _answering(stage: RabbitMQStage) -> None:
    async with stage.bus("demo") as demo:
        await served(demo, stage.services, stage.check)


@pytest.fixture
async def in_memory(documents: None, sentence: str) -> Ended:
    return await bus("demo", sentence, BUS_URL="memory:")


@pytest.fixture
def sentence(tmp_path: Path) -> str:
    return str(last_sentence(tmp_path / "sentence.wav"))


def _is_one_line(answer: Ended, *, code: int, about: str) -> None:
    assert answer.code == code, answer.err
    lines = [line for line in answer.err.splitlines() if line.strip()]
    assert len(lines) == 1, answer.err
    assert lines[0].startswith("error: ")
    assert about in lines[0]
    assert os.sep + "site-packages" not in answer.err
