"""The output of `bus topology prune` for results of a run."""

import asyncio
import importlib
import json
import os
import signal

import pytest
import typer

from bus import ConfigurationError, Router
from bus.cli.output import print_json
from bus.cli.topology.prune import DONE, show, to_json, to_line
from bus.messaging.topology.model import Binding
from bus.operations.topology.prune import PruneResult
from bus.operations.topology.prune_model import Decision

QUEUE = "stock.events.shop.sold.v1"
BINDING = Binding(exchange="bus.events", queue=QUEUE, routing_key="shop.sold.v1")
command_module = importlib.import_module("bus.cli.topology.prune")
UNBIND = Decision(action="unbind", what="queue", name=QUEUE, bindings=(BINDING,))
DELETE = Decision(action="delete", what="queue", name=QUEUE)
KEEP = Decision(action="keep", what="queue", name=QUEUE, detail="it has 1 consumer. Stop it.")
FOLLOW = Decision(action="keep", what="queue", name=f"{QUEUE}.dead", follows=QUEUE)
WAIT = Decision(action="wait", what="queue", name=QUEUE, detail="1 consumer must stop")


def printed(
    capsys: pytest.CaptureFixture[str], result: PruneResult, *, dry_run: bool = False
) -> tuple[list[str], list[str]]:
    show(result, dry_run=dry_run)
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def test_a_dry_run_prints_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, PruneResult(steps=(UNBIND, DELETE)), dry_run=True) == (
        [
            f"would unbind {QUEUE} from bus.events by shop.sold.v1",
            f"would delete queue {QUEUE}",
        ],
        [],
    )


def test_a_kept_queue_has_one_line_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, PruneResult(left=(KEEP, FOLLOW))) == (
        [f"kept queue {QUEUE}: it has 1 consumer. Stop it."],
        [],
    )


def test_a_binding_that_was_created_again_is_reported() -> None:
    bind = Decision(action="bind", what="queue", name=QUEUE, bindings=(BINDING,))
    assert to_line(bind, DONE["bind"]) == f"bound again {QUEUE} to bus.events by shop.sold.v1"


def test_a_run_that_is_over_time_tells_how_to_continue(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, PruneResult(steps=(UNBIND,), left=(WAIT,))) == (
        [f"left queue {QUEUE}: 1 consumer must stop"],
        ["the time is over; run the command again to continue"],
    )


def test_a_dry_run_tells_what_a_run_would_wait_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, PruneResult(left=(WAIT,)), dry_run=True) == (
        [f"would wait for queue {QUEUE}: 1 consumer must stop"],
        [],
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_cleans_up_and_tells_how_to_continue(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends: list[str] = []

    async def run(*_arguments: object) -> PruneResult:
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(20)
        finally:
            await asyncio.sleep(0)
            ends.append("bound again")
        raise AssertionError

    monkeypatch.setattr(command_module, "prune_topology", run)
    monkeypatch.setattr(command_module, "require", lambda *_arguments, **_options: None)
    with pytest.raises((KeyboardInterrupt, typer.Exit)) as ended:
        command_module.prune(["stock:router"])
    assert ends == ["bound again"]
    assert capsys.readouterr().err.endswith("interrupted; run the command again to continue\n")
    if isinstance(ended.value, typer.Exit):
        assert (ended.value.exit_code, number) == (143, signal.SIGTERM)


def test_a_router_without_handlers_is_refused_as_by_bus_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bus.cli.topology.options.load_router", Router)
    with pytest.raises(ConfigurationError, match="stock: the router has no handlers"):
        command_module.prune(["stock"])


def test_a_queue_of_another_program_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, PruneResult(foreign=(QUEUE,))) == (
        [],
        [
            f"not touched: queue {QUEUE}, because the bus did not create it",
            "the broker has no old queues of these services; nothing to do",
        ],
    )


def test_programs_get_all_steps_and_all_that_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    result = PruneResult(steps=(UNBIND, DELETE), left=(WAIT, FOLLOW), foreign=("stock.jobs.a.v1",))
    print_json(to_json(result, dry_run=False), compact=True)
    assert json.loads(capsys.readouterr().out) == {
        "clean": False,
        "dry_run": False,
        "unbound": [{"exchange": "bus.events", "queue": QUEUE, "routing_key": "shop.sold.v1"}],
        "deleted": [{"what": "queue", "name": QUEUE}],
        "left": [
            {"what": "queue", "name": QUEUE, "waits": True, "detail": "1 consumer must stop"},
            {"what": "queue", "name": f"{QUEUE}.dead", "waits": False, "detail": ""},
        ],
        "foreign": ["stock.jobs.a.v1"],
    }


def test_only_a_result_with_nothing_left_is_clean() -> None:
    clean = [
        to_json(result, dry_run=dry_run)["clean"]
        for result, dry_run in (
            (PruneResult(), False),
            (PruneResult(steps=(DELETE,)), False),
            (PruneResult(steps=(DELETE,)), True),
            (PruneResult(left=(KEEP,)), False),
        )
    ]
    assert clean == [True, True, False, False]
