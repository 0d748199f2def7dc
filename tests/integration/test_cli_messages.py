"""Tests of `bus call`, `bus publish` and `bus submit`."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from bus import Bus, Job, Settings
from tests.integration.command import ROOT, Ended, bus, ended, running
from tests.integration.library_service import heard, router
from tests.polling import until

CONTRACTS = "tests.integration.library_service"
ID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
EMMA = '{"title": "Emma"}'


@pytest.fixture
async def served(vhost_url: str) -> AsyncIterator[str]:
    """Serve the library, and return the broker's URL."""
    heard.clear()
    # The stop does not wait for handlers that a test left running.
    settings = Settings(url=SecretStr(vhost_url), stop_grace=0)
    async with Bus("library", settings=settings) as library, library.serving(router):
        yield vhost_url


async def said(url: str, *arguments: str, **environment: str) -> Ended:
    return await bus(*arguments, BUS_URL=url, BUS_CONTRACTS=CONTRACTS, **environment)


@asynccontextmanager
async def speaking(url: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    async with running(*arguments, BUS_URL=url, BUS_CONTRACTS=CONTRACTS) as process:
        yield process


async def test_an_answer_is_readable_json_and_compact_for_programs(served: str) -> None:
    readable, compact = await asyncio.gather(
        said(served, "call", "library.find.v1", EMMA),
        said(served, "call", "library.find.v1", EMMA, "--json"),
    )
    assert (readable.code, readable.err) == (0, "")
    assert readable.out == '{\n  "shelf": "A3 ☃ \\u009b2J"\n}\n'
    assert compact.out == '{"shelf":"A3 ☃ \\u009b2J"}\n'


async def test_what_the_service_refuses_is_a_line_and_the_exit_code_of_its_class(
    served: str,
) -> None:
    answer = await said(served, "call", "library.find.v1", '{"title": "Emmma"}')
    assert (answer.code, answer.out) == (os.EX_NOINPUT, "")
    assert re.fullmatch(
        rf"error: NotFound: library.find.v1: no such book \\u001b\[2J; correlation id {ID}\n",
        answer.err,
    )


async def test_what_does_not_fit_the_contract_is_not_sent(served: str) -> None:
    answer = await said(
        served, "call", "library.find.v1", '{"title": 4711, "patient": "Eleonora Quist"}'
    )
    assert answer.code == os.EX_DATAERR
    assert "library.find.v1: title: must be a string; unknown field, whose name" in answer.err
    assert "4711" not in answer.err
    assert "Quist" not in answer.err
    assert heard == []


async def test_a_payload_can_be_piped(served: str) -> None:
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "bus.cli", "call", "library.find.v1", "-")
    environment = {**os.environ, "BUS_URL": served, "BUS_CONTRACTS": CONTRACTS}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe
    )
    out, _ = await asyncio.wait_for(process.communicate(EMMA.encode()), 150)
    assert json.loads(out)["shelf"].startswith("A3")


async def test_nobody_who_serves_is_told_at_once(vhost_url: str) -> None:
    answer = await said(vhost_url, "call", "library.find.v1", EMMA)
    assert answer.code == os.EX_UNAVAILABLE
    assert answer.err.startswith("error: NotServed: library.find.v1: no service serves it")


async def test_a_timeout_has_the_code_for_trying_later(served: str) -> None:
    answer = await said(
        served, "call", "library.find.v1", '{"title": "Emma", "seconds": 20}', "--timeout", "0.5"
    )
    assert (answer.code, answer.out) == (os.EX_TEMPFAIL, "")
    # The service or the command can reach its deadline first. Both report it in one line.
    assert len(answer.err.splitlines()) == 1


async def test_ctrl_c_ends_a_call_without_a_traceback(served: str) -> None:
    async with speaking(
        served, "call", "library.find.v1", '{"title": "Emma", "seconds": 20}', "--timeout", "30"
    ) as process:
        await until(lambda: heard, "the request")
        process.send_signal(signal.SIGINT)
        answer = await ended(process, 100)
    assert (answer.code, answer.out, answer.err) == (130, "", "")


async def test_an_event_is_published_by_who_says_that_they_speak_for_its_owner(served: str) -> None:
    publish = ("publish", "library.scanned.v1", EMMA)
    nobody, another, owner, program = await asyncio.gather(
        said(served, *publish),
        said(served, *publish, "--as", "reader"),
        said(served, *publish, "--as", "library"),
        said(served, *publish, "--as", "library", "--json"),
    )
    assert nobody.code == another.code == os.EX_CONFIG
    assert "--as library" in nobody.err
    assert "reader cannot publish it" in another.err
    assert (owner.code, owner.out) == (0, "")
    assert "published library.scanned.v1" in owner.err
    assert (program.code, program.err, set(json.loads(program.out))) == (
        0,
        "",
        {"type", "correlation_id"},
    )
    await until(lambda: len(heard) == 2, "the events")
    assert heard == ["Emma", "Emma"]


async def test_a_job_shows_its_progress_on_standard_error_and_its_result_on_standard_output(
    served: str,
) -> None:
    answer = await said(served, "submit", "library.scan.v1", EMMA, "--json")
    assert answer.out == '{"shelf":"B1"}\n'
    submitted, hint, progress = answer.err.splitlines()
    ids = re.fullmatch(
        rf"submitted library.scan.v1 as ({ID}) with correlation id ({ID}); .* confirmed it",
        submitted,
    )
    assert ids
    assert f"`bus trace {ids[2][:8]}`" in hint
    assert progress == " 50% half of it"


async def test_a_job_that_nobody_waits_for_has_its_ids_on_both_outputs(served: str) -> None:
    answer = await said(served, "submit", "library.scan", EMMA, "--no-wait")
    ids = json.loads(answer.out)
    assert f"as {ids['id']} with correlation id {ids['correlation_id']}" in answer.err


async def test_a_job_goes_on_without_who_submitted_it(served: str) -> None:
    left, late = await asyncio.gather(
        said(served, "submit", "library.scan.v1", '{"title": "Persuasion"}', "--no-wait", "--json"),
        said(
            served,
            "submit",
            "library.scan.v1",
            '{"title": "Emma", "seconds": 20}',
            "--timeout",
            "1",
        ),
    )
    assert set(json.loads(left.out)) == {"id", "correlation_id"}
    assert left.code == 0
    assert late.code == os.EX_TEMPFAIL
    assert "error: DeadlineExceeded: library.scan.v1 (job " in late.err
    assert "): the job has not ended within 1 s, and continues" in late.err
    await until(lambda: {"Emma", "Persuasion"} <= set(heard), "both jobs")


async def test_contracts_are_listed_and_shown() -> None:
    listed, shown, told = await asyncio.gather(
        bus("contracts", "--json", "--contracts", CONTRACTS),
        bus("contracts", "show", "library.find.v1", "--contracts", CONTRACTS, "--sample"),
        bus("contracts", "show", "library.scan.v1", "--contracts", CONTRACTS),
    )
    assert "job of library" in told.out
    assert str(Job.__doc__) not in told.out, "what all jobs are"
    assert [each["type"] for each in json.loads(listed.out)] == [
        "library.find.v1",
        "library.scan.v1",
        "library.scanned.v1",
    ]
    assert json.loads(listed.out)[0]["fields"][1]["description"] == "Seconds that the search takes."
    assert json.loads(shown.out) == {"title": "…", "seconds": 0}
    assert listed.err == shown.err == ""


async def test_the_shell_completes_the_types_of_the_commands_kind() -> None:
    line = {
        "_BUS_COMPLETE": "complete_bash",
        "COMP_WORDS": "bus call library.",
        "COMP_CWORD": "2",
        "BUS_CONTRACTS": CONTRACTS,
    }
    called, shown = await asyncio.gather(
        bus(**line), bus(**{**line, "COMP_WORDS": "bus contracts show library.", "COMP_CWORD": "3"})
    )
    assert called.out.split() == ["library.find.v1"]
    assert shown.out.split() == ["library.find.v1", "library.scan.v1", "library.scanned.v1"]


async def test_completion_without_contracts_says_nothing() -> None:
    line = {
        "_BUS_COMPLETE": "complete_bash",
        "COMP_WORDS": "bus call library.",
        "COMP_CWORD": "2",
        "BUS_CONTRACTS": "no.such.module",
    }
    answer = await bus(**line)
    assert (answer.out.strip(), answer.err) == ("", "")
