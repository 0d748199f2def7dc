"""Tests of the service on a real RabbitMQ, in its own process, as an operator runs it."""

from pathlib import Path

from pydantic import SecretStr

from bus import Bus, Settings, correlated
from tests.integration.command import bus as command
from tests.integration.command import ended, running
from tests.polling import until
from tests.workers.documents.conversation import archive, from_note_to_documents, transcription
from workers.demo.stage import WORKERS, served


async def test_a_note_becomes_two_documents_on_one_correlation_id(
    vhost_url: str, tmp_path: Path
) -> None:
    def bus(service: str) -> Bus:
        return Bus(service, settings=Settings(url=SecretStr(vhost_url)))

    router, heard = archive()
    worker = running(
        "run",
        "workers.documents:router",
        BUS_URL=vhost_url,
        DOCUMENTS_FOLDER=str(tmp_path / "documents"),
    )
    async with (
        worker as process,
        bus("desk") as desk,
        bus("archive") as archiving,
        archiving.serving(router),
    ):
        async with bus("transcription") as transcribing, transcribing.serving(transcription()):
            await served(desk, tuple(WORKERS), lambda: None)
            with correlated("one-id"):
                status, made = await from_note_to_documents(desk)
        await until(lambda: len(heard) >= 2, "an event for each document")
        process.terminate()
        assert (await ended(process)).code == 0
    assert status.documents == made
    assert heard == [("one-id", document) for document in made]


async def test_a_worker_whose_folder_cannot_be_says_so_in_a_line(vhost_url: str) -> None:
    answer = await command(
        "run", "workers.documents:router", BUS_URL=vhost_url, DOCUMENTS_FOLDER="/dev/null/documents"
    )
    assert answer.code == 78
    assert "DOCUMENTS_FOLDER" in answer.err.splitlines()[-1]
