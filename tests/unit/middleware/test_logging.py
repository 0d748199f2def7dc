import logging as levels

import pytest

from bus.errors import NotFound
from bus.messaging.envelope import Envelope
from bus.middleware import logging as module
from bus.middleware.logging import logging
from tests.unit.fakes import envelope, virtual

SECRET = "Eleonora Quist"
MESSAGE = envelope(body=SECRET.encode(), headers={"note": SECRET})


async def fine(_: Envelope) -> None:
    return


async def refusing(_: Envelope) -> None:
    raise NotFound("no such account")


async def broken(_: Envelope) -> None:
    raise ValueError(SECRET)


async def through(side: str, handler: object) -> None:
    with pytest.MonkeyPatch.context():
        policy = logging(side, timer=iter([1.0, 1.25]).__next__)
        await policy(handler)(MESSAGE)  # type: ignore[arg-type]  # one of the three above


@virtual
async def test_what_went_well_is_one_debug_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "bus.messages")
    await through("handled", fine)
    (record,) = caplog.records
    facts = vars(record)
    assert (record.levelname, record.getMessage()) == ("DEBUG", "message handled")
    assert (
        facts["type"],
        facts["message_id"],
        facts["correlation_id"],
        facts["attempt"],
        facts["ms"],
    ) == (
        "ledger.add.v1",
        "m-1",
        "c-1",
        1,
        250.0,
    )


@pytest.mark.parametrize(
    ("side", "handler", "level", "facts"),
    [
        ("handled", refusing, "INFO", {"code": "not_found", "text": "no such account"}),
        ("handled", broken, "ERROR", {"code": "internal", "error": "ValueError"}),
        ("sent", refusing, "DEBUG", {"code": "not_found"}),
        ("sent", broken, "DEBUG", {"error": "ValueError"}),
    ],
)
def test_a_failure_is_a_line_without_payload_or_foreign_text(
    side: str, handler: object, level: str, facts: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    @virtual
    async def run() -> None:
        with pytest.raises((NotFound, ValueError)):
            await through(side, handler)

    caplog.set_level("DEBUG", "bus.messages")
    run()
    (record,) = caplog.records
    assert record.levelname == level
    assert facts.items() <= vars(record).items()
    assert SECRET not in str(vars(record)) + caplog.text


@virtual
async def test_the_place_of_a_fault_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=SECRET):
        await through("handled", broken)
    assert "test_logging.py:" in vars(caplog.records[0])["where"]


@virtual
async def test_nothing_is_computed_for_a_line_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_facts", lambda _: pytest.fail("computed"))
    monkeypatch.setattr(levels.getLogger("bus.messages"), "disabled", True)
    await through("handled", fine)
    with pytest.raises(ValueError, match=SECRET):
        await through("handled", broken)


@virtual
async def test_an_application_without_any_set_up_finds_nothing_on_its_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(NotFound):
        await through("handled", refusing)
    with pytest.raises(ValueError, match=SECRET):
        await through("handled", broken)
    assert capsys.readouterr().out == ""
