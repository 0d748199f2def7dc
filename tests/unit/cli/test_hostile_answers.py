"""Each record that is valid can be shown by each command, whatever service sent it."""

import io
import json
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from bus.cli.contract_usage import print_usage, usage_to_json
from bus.cli.output import EscapingConsole
from bus.cli.services.as_json import services_to_json
from bus.cli.services.detail import service_detail
from bus.cli.services.list_table import services_table
from bus.cli.top.operations import operation_rows, operations_table
from bus.cli.trace.json_output import to_json
from bus.cli.trace.mermaid import flowchart
from bus.cli.trace.sources import Reading
from bus.cli.trace.text import trace_lines
from bus.integrations.prometheus import exporter_registry
from bus.integrations.prometheus.exporter_metrics import Shown
from bus.integrations.prometheus.exposition import render
from bus.messaging.histograms import BOUNDS
from bus.messaging.instruments import INSTRUMENTS
from bus.messaging.service_info import (
    MAX_AMOUNT,
    MAX_COUNT,
    MAX_MILLISECONDS,
    MAX_SECONDS,
    InstanceInfo,
    InstanceStats,
    RememberedMessages,
)
from bus.operations.contract_usage import examine_usage
from bus.operations.message_trace.join import join
from bus.operations.message_trace.model import TraceSources
from bus.runtime.discovery.measurements import Measurements
from bus.runtime.discovery.service_summary import summarize_services
from tests.properties import as_here
from tests.unit.runtime.discovery.records import view_of

as_here()
R = TypeVar("R", bound=BaseModel)
NOW = 1_796_000_000_000
TEXTS = st.sampled_from(
    ["", "mail", "[/red]", "[bold]x", "x" * 200, "\u202e", "a{}", '"\\', "mail.send", ":100:", "-"]
)
ANY_TEXTS = TEXTS | st.sampled_from(["\x1b[2J", "a\r\nb", "\x00", "[/t]\n" * 300])
COUNTS = st.sampled_from([0, 1, 7, MAX_COUNT])
TIMES = st.sampled_from([0, 1, NOW, MAX_MILLISECONDS])
SECONDS = st.sampled_from([0.0, 1e-9, 1.0, 59.99, MAX_SECONDS])
KINDS = st.sampled_from(["request", "event", "job"])
OUTCOMES = st.sampled_from(["ok", "internal"]) | ANY_TEXTS
BUCKETS = st.dictionaries(st.integers(0, len(BOUNDS)), COUNTS, max_size=3)
NAMES = st.sampled_from([each.name for each in INSTRUMENTS]) | TEXTS
LABELS = st.fixed_dictionaries(
    {
        "operation": st.just("mail.send") | ANY_TEXTS,
        "version": st.sampled_from(["1", "0", "9999", "99999", "other", "²"]),
        "kind": KINDS | ANY_TEXTS,
        "caller": ANY_TEXTS,
        "outcome": OUTCOMES,
        "subscription": ANY_TEXTS,
    }
)
SERIES = st.fixed_dictionaries(
    {
        "name": NAMES,
        "labels": LABELS,
        "value": st.sampled_from([0, 0.4, 1, MAX_AMOUNT]),
        "recent_value": st.sampled_from([0, 1, MAX_AMOUNT]),
        "latest_value": st.sampled_from([0, 1, MAX_AMOUNT]),
        "count": COUNTS,
        "max": SECONDS,
        "buckets": BUCKETS,
        "recent": BUCKETS,
        "recent_max": SECONDS,
        "exemplars": st.dictionaries(
            st.integers(0, len(BOUNDS)),
            st.tuples(ANY_TEXTS | st.just("f" * 32), SECONDS, TIMES),
            max_size=2,
        ),
        "last": TIMES,
    }
)
STATE = {
    "service": st.just("mail"),
    "instance": TEXTS,
    "version": st.none() | TEXTS,
    "started": TIMES,
    "state": st.sampled_from(["starting", "ready", "not-ready", "draining"]),
    "left_out": COUNTS,
}
HANDLER = st.fixed_dictionaries(
    {
        "operation": TEXTS,
        "version": COUNTS,
        "kind": KINDS,
        "queue": TEXTS,
        "subscription": st.none() | TEXTS,
        "slots": COUNTS,
        "free": COUNTS,
        "in_flight": COUNTS,
        "pauses": st.lists(TEXTS, max_size=2),
        "last_error": st.none()
        | st.fixed_dictionaries({"code": ANY_TEXTS, "at": TIMES, "place": ANY_TEXTS}),
        "last_handled": st.none() | TIMES,
    }
)
STATS = st.fixed_dictionaries(
    {
        **STATE,
        "since": TIMES,
        "handlers": st.lists(HANDLER, max_size=3),
        "series": st.lists(SERIES, max_size=5),
    }
)
CONTRACT = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["mail.send.v1", "mail.send.v9999", "shop.sold.v2"]) | TEXTS,
        "kind": KINDS,
        "permission": TEXTS,
        "queue": TEXTS,
        "subscription": st.none() | TEXTS,
        "digest": TEXTS,
        "reply_digest": st.none() | TEXTS,
    }
)
INFO = st.fixed_dictionaries(
    {
        **STATE,
        "bus_version": TEXTS,
        "python_version": TEXTS,
        "contracts": st.lists(CONTRACT, max_size=3),
    }
)
ACTIONS = st.sampled_from(["sent", "running", "handled", "retried", "dead-lettered", "refused"])
MESSAGE = st.fixed_dictionaries(
    {
        "action": ACTIONS,
        "id": st.sampled_from(["1", "2"]) | ANY_TEXTS,
        "type": st.just("mail.send.v1") | ANY_TEXTS,
        "source": st.just("mail") | ANY_TEXTS,
        "at": TIMES,
        "seconds": SECONDS,
        "attempt": COUNTS,
        "outcome": OUTCOMES,
        "correlation_id": st.just("cafe"),
        "causation_id": st.none() | st.sampled_from(["1", "2"]) | ANY_TEXTS,
        "queue": st.none() | st.just("mail.jobs.send.v1") | ANY_TEXTS,
        "tier": st.none() | st.sampled_from(["5s", "1h"]) | ANY_TEXTS,
    }
)
FOUND = st.fixed_dictionaries(
    {**STATE, "since": TIMES, "remembered": COUNTS, "messages": st.lists(MESSAGE, max_size=6)}
)


def read(record: type[R], values: Any) -> R:
    return record.model_validate_json(json.dumps(values))


def console(width: int) -> EscapingConsole:
    return EscapingConsole(file=io.StringIO(), width=width)


@settings(max_examples=20)
@given(width=st.sampled_from([60, 1000]), before=STATS, after=STATS, info=INFO)
def test_each_valid_report_can_be_shown_as_tables_json_and_metrics(
    width: int, before: Any, after: Any, info: Any
) -> None:
    first, second, known = (
        read(InstanceStats, before),
        read(InstanceStats, {**after, "instance": before["instance"], "started": 1}),
        read(InstanceInfo, info),
    )
    measurements, shown = Measurements(), console(width)
    for view in (view_of(first), view_of(second)):
        measurements.record(view.instances())
        services = summarize_services(view.instances(), measurements)
        shown.print(services_table(services, shown))
        shown.print(service_detail(services[0], shown, (known,), verbose=True))
        for sort in ("rate", "p99", "errors"):
            shown.print(operations_table(operation_rows(services, sort), shown))
        json.dumps(services_to_json(services, [known], at=1), allow_nan=False)
    usage = examine_usage([known], [first, second])
    print_usage(usage, shown, has_catalog=False, now=NOW / 1000)
    json.dumps(usage_to_json(usage), allow_nan=False)
    registry = exporter_registry(lambda: Shown(stats=(first, second)))
    assert render(registry, "text")
    assert render(registry, "openmetrics").endswith(b"# EOF\n")


@settings(max_examples=40)
@given(one=FOUND, two=FOUND)
def test_each_valid_memory_can_be_shown_as_a_trace(one: Any, two: Any) -> None:
    memories = [
        read(RememberedMessages, one),
        read(RememberedMessages, {**two, "service": "shop"}),
    ]
    sources = TraceSources(memories=memories, letters=[], queues=[])
    trace = join("cafe", sources, now=NOW)
    shown = console(80)
    for line in trace_lines(trace, now=NOW):
        shown.print(line)
    assert flowchart(trace).startswith("flowchart TD")
    reading = Reading(sources=sources, identified=None, notes=(), alive=None)
    json.dumps(to_json(trace, reading, now=NOW), allow_nan=False)


@pytest.mark.parametrize("value", ["1e999", "NaN", "-1", "1" + "0" * 4000], ids=str.__len__)
@pytest.mark.parametrize("field", ["started", "left_out", "since"])
def test_a_number_beyond_its_limit_is_not_valid(field: str, value: str) -> None:
    values = {"service": "a", "instance": "1", "started": 1, "since": 1, "state": "ready"}
    text = json.dumps({**values, field: "@"}).replace('"@"', value)
    with pytest.raises(ValidationError):
        InstanceStats.model_validate_json(text)
