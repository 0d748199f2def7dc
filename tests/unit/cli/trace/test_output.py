"""Tests of the text, the flowchart and the JSON of a trace."""

import json
import re

from bus.cli.trace.json_output import to_json
from bus.cli.trace.mermaid import MAX_NODES, flowchart
from bus.cli.trace.sources import Reading
from bus.cli.trace.text import MAX_MESSAGES, trace_lines
from bus.operations.message_trace.identify import Identified
from bus.operations.message_trace.join import join
from bus.operations.message_trace.model import MessageTrace, TraceSources
from bus.operations.queue_inspection import QueueStatus
from tests.unit.cli.trace.records import LIBRARY, ORDER, QUEUE, SCAN, SHOP, T0, memory, remembered

NOW = T0 + 2_500
REQUESTS = QueueStatus(name="shop.requests.order.v1", service="shop", role="requests")
HOSTILE = 'a"]:::dead\n    m0 --> x<script>alert(1)</script>\x1b[31m'
NODE = re.compile(
    r'    [mc]\d+\["[A-Za-z0-9 .,:_/#;-]*(<br/>[A-Za-z0-9 .,:_/#;-]*){0,2}"\]:::\w+.*'
)


def traced(*memories: object) -> MessageTrace:
    sources = TraceSources(memories=memories or (SHOP, LIBRARY), queues=[REQUESTS])  # type: ignore[arg-type]
    return join(ORDER, sources, now=NOW)


def text(trace: MessageTrace) -> str:
    return "\n".join(line.plain for line in trace_lines(trace, now=NOW))


def test_the_tree_shows_the_state_and_the_actions_of_each_message() -> None:
    shown = re.sub(r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d", "TIME", text(traced()))
    waits = f"waits in retry tier 30s, returns to {QUEUE} at TIME (in 28s)"
    attempt = "attempt 1, internal, 500 ms, to retry tier 30s"
    assert shown.splitlines() == [
        f"correlation id {ORDER}: 2 messages, the first at TIME.000",
        "shop.order.v1 8f3c0c5e from shop: answered in 250 ms",
        "     TIME.000  sent by shop vm-7-ab, 250 ms",
        f"└─ library.scan.v1 1bca7969 from shop: {waits}",
        "        TIME.020  sent by shop vm-7-ab, 2.0 ms",
        f"        TIME.030  retried by library vm-7-ab, {attempt}",
    ]


def test_a_message_that_may_have_ended_processes_has_its_lost_deliveries() -> None:
    running = memory(remembered("running", seconds=36.5, lost_deliveries=2))
    lines = text(traced(running)).splitlines()
    assert lines[1].endswith(" from shop: runs for 36.5 s, alone after 2 lost deliveries")
    assert lines[2].endswith("running by library vm-7-ab, 36.5 s, alone after 2 lost deliveries")
    handled = memory(remembered("handled", seconds=62, lost_deliveries=3))
    assert ": handled in 1m, alone after 3 lost deliveries" in text(traced(handled))


def test_a_failed_attempt_keeps_its_lost_deliveries() -> None:
    failed = remembered("handled", seconds=1, outcome="internal", lost_deliveries=2)
    retried = remembered("retried", at=T0 + 1_000, outcome="internal", tier="30s")
    (line,) = [each for each in text(traced(memory(failed, retried))).splitlines() if "by " in each]
    assert line.endswith(
        "attempt 1, internal, 1.0 s, alone after 2 lost deliveries, to retry tier 30s"
    )


def test_a_last_attempt_that_failed_is_not_called_handled() -> None:
    failed = memory(remembered("handled", attempt=3, outcome="internal", seconds=1))
    assert (
        text(traced(failed))
        .splitlines()[-1]
        .endswith(" failed in library vm-7-ab, attempt 3, internal, 1.0 s")
    )


def test_effects_of_one_cause_are_branches_of_one_line() -> None:
    causes = {"a": ORDER, "a1": "a", "a2": "a", "b": ORDER, "b1": "b"}
    effects = [
        remembered("sent", id_, at=T0 + number, causation_id=cause)
        for number, (id_, cause) in enumerate(causes.items())
    ]
    shown = text(traced(memory(remembered("sent", ORDER), *effects))).splitlines()
    short = re.compile(r"(library\.scan\.v1 )|( from .*)|( (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d.*)")
    assert [short.sub("", line).rstrip() for line in shown[2:]] == [
        "",
        "├─ a",
        "│",
        "│  ├─ a1",
        "│  │",
        "│  └─ a2",
        "│",
        "└─ b",
        "",
        "   └─ b1",
        "",
    ]


def test_a_message_without_a_known_queue_names_the_command_that_shows_its_receivers() -> None:
    shown = text(traced(memory(remembered("sent", type="library.scanned.v1"))))
    assert shown.splitlines()[1] == (
        "library.scanned.v1 1bca7969 from shop: no queue and no instance knows its end; "
        "`bus contracts usage` shows the services that handle its type"
    )


def test_a_long_tree_is_cut_with_a_count() -> None:
    many = memory(*(remembered("sent", f"id-{number}") for number in range(MAX_MESSAGES + 7)))
    shown = text(traced(many)).splitlines()
    assert shown[-1] == "7 more messages not shown; --json prints all of them"


def test_names_of_senders_cannot_forge_a_line_of_the_tree() -> None:
    shown = text(traced(memory(remembered("refused", type=HOSTILE, source=HOSTILE))))
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 3


def test_the_chart_has_a_node_for_each_message_and_an_arrow_from_each_cause() -> None:
    lines = flowchart(traced()).splitlines()
    assert lines[0] == "flowchart TD"
    assert '    m0["shop.order.v1<br/>8f3c0c5e from shop<br/>handled"]:::handled' in lines
    assert '    m1["library.scan.v1<br/>1bca7969 from shop<br/>retrying"]:::retrying' in lines
    assert [line for line in lines if "-->" in line] == ["    m0 --> m1"]


def test_names_of_senders_cannot_forge_the_chart() -> None:
    lines = flowchart(traced(memory(remembered("sent", HOSTILE, type=HOSTILE)))).splitlines()
    nodes = [line for line in lines[1:] if "classDef" not in line]
    assert nodes
    assert [line for line in nodes if not NODE.fullmatch(line)] == []


def test_a_large_chart_is_cut_with_a_count() -> None:
    many = memory(*(remembered("sent", f"id-{number}") for number in range(MAX_NODES + 5)))
    assert '    more["5 more messages"]:::unknown' in flowchart(traced(many)).splitlines()


def test_json_has_all_values_of_a_trace() -> None:
    trace = traced()
    reading = Reading(
        sources=TraceSources(memories=[SHOP, LIBRARY], letters=[]),
        identified=Identified(correlation_id=ORDER),
        notes=("dead letters were not read",),
        alive=3,
    )
    value = json.loads(json.dumps(to_json(trace, reading, now=NOW)))
    assert value["instances"] == {"alive": 3, "answered": 2}
    assert value["notes"] == ["dead letters were not read"]
    assert value["messages"][1] == {
        "id": SCAN,
        "type": "library.scan.v1",
        "source": "shop",
        "causation_id": ORDER,
        "depth": 1,
        "state": "retrying",
        "at": T0 + 20,
        "sent": value["messages"][1]["sent"],
        "queues": [
            {
                "queue": QUEUE,
                "state": "retrying",
                "tier": "30s",
                "returns_at": T0 + 530 + 30_000,
                "ready": None,
                "consumers": None,
                "actions": [
                    {
                        "action": "retried",
                        "service": "library",
                        "instance": "vm-7-ab",
                        "at": T0 + 30,
                        "seconds": 0.5,
                        "attempt": 1,
                        "outcome": "internal",
                        "tier": "30s",
                        "lost_deliveries": 0,
                    }
                ],
                "dead": None,
            }
        ],
    }
