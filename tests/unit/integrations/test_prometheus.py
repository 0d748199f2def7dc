"""The metrics of reports in the two formats of Prometheus, read back by its own parsers."""

import asyncio
import random
from collections.abc import Iterable
from math import inf

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

from bus.contracts.contract import Event, contract
from bus.integrations.prometheus import collector, metric_name
from bus.integrations.prometheus import families as families_module
from bus.integrations.prometheus.collectors import StatsCollector, library_version
from bus.integrations.prometheus.exposition import Format, choose_format, render
from bus.messaging.histograms import BOUNDS, EXPOSED_BOUNDS, bucket_of
from bus.messaging.instruments import HANDLED, HANDLER_SECONDS, INSTRUMENTS, SENT
from bus.messaging.ports.meter import Instrument
from bus.messaging.service_info import InstanceStats, Series
from bus.storage.memory.meter import MemoryMeter
from bus.testing.buses import MemoryBuses
from tests.unit.integrations.stats import HANDLED_LABELS, durations, handled, ready, stats

FORMATS: tuple[Format, ...] = ("text", "openmetrics")


@contract("web.sold", version=1)
class BookSold(Event):
    title: str


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def rendered(reports: Iterable[InstanceStats], chosen: Format) -> str:
    registry = CollectorRegistry()
    registry.register(StatsCollector(lambda: reports))
    return render(registry, chosen).decode()


def families(reports: Iterable[InstanceStats], chosen: Format) -> dict[str, Metric]:
    parse = parse_open if chosen == "openmetrics" else parse_text
    return {each.name: each for each in parse(rendered(reports, chosen))}


def samples(reports: Iterable[InstanceStats], chosen: Format = "text") -> list[Sample]:
    return [each for family in families(reports, chosen).values() for each in family.samples]


def test_a_name_has_the_namespace_the_unit_and_the_suffix_of_a_counter() -> None:
    assert {metric_name(each) for each in INSTRUMENTS} == {
        "trunkline_messages_sent_total",
        "trunkline_messages_send_duration_seconds",
        "trunkline_messages_handled_total",
        "trunkline_messages_handler_duration_seconds",
        "trunkline_messages_start_delay_seconds",
        "trunkline_messages_retried_total",
        "trunkline_messages_dead_lettered_total",
        "trunkline_messages_duplicates_total",
        "trunkline_messages_stale_commits_total",
        "trunkline_messages_shed_total",
        "trunkline_messages_in_flight",
        "trunkline_handler_slots",
        "trunkline_handler_slots_free",
        "trunkline_ready",
        "trunkline_connections_lost_total",
        "trunkline_breaker_state",
        "trunkline_breaker_changes_total",
        "trunkline_chaos_faults_total",
        "trunkline_calls_retried_total",
        "trunkline_calls_rejected_total",
        "trunkline_retry_budget_tokens",
        "trunkline_calls_hedged_total",
        "trunkline_cache_lookups_total",
        "trunkline_fallbacks_total",
        "trunkline_bulkhead_in_flight",
        "trunkline_bulkhead_waiting",
        "trunkline_consumers_paused",
        "trunkline_jobs_rows",
        "trunkline_jobs_oldest_waiting_seconds",
        "trunkline_jobs_recorded_total",
        "trunkline_jobs_start_delay_seconds",
        "trunkline_jobs_leases_lost_total",
        "trunkline_jobs_stale_writes_total",
        "trunkline_store_statement_duration_seconds",
        "trunkline_store_reachable",
    }


@pytest.mark.parametrize("chosen", FORMATS)
@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda each: each.name)
def test_every_instrument_is_a_family_with_its_labels_after_the_service(
    instrument: Instrument, chosen: Format
) -> None:
    meter = MemoryMeter()
    labels = tuple(f"value of {name}" for name in instrument.labels)
    match instrument.kind:
        case "counter":
            meter.count(instrument, labels, 3)
        case "gauge":
            meter.set(instrument, labels, 3)
        case "histogram":
            meter.observe(instrument, labels, 3)
    found = families([stats(*meter.snapshot())], chosen)

    family = found[metric_name(instrument).removesuffix("_total")]
    assert (family.type, family.documentation) == (instrument.kind, instrument.description)
    assert family.unit == ("seconds" if instrument.unit == "s" and chosen == "openmetrics" else "")
    assert family.samples[-1].value == 3
    expected = {"service": "library", **dict(zip(instrument.labels, labels, strict=True))}
    assert {name: value for name, value in family.samples[-1].labels.items() if name != "le"} == (
        expected
    )


@pytest.mark.parametrize("chosen", FORMATS)
def test_a_histogram_has_cumulative_buckets_of_1_2_5_and_5_in_each_decade(chosen: Format) -> None:
    report = stats(durations(0.0001, 0.0002, 0.003, 0.0031, 7, 20_000))
    found = families([report], chosen)["trunkline_messages_handler_duration_seconds"].samples

    buckets = {each.labels["le"]: each.value for each in found if "le" in each.labels}
    assert [float(bound) for bound in buckets] == [*EXPOSED_BOUNDS, inf]
    assert {bound: buckets[bound] for bound in ("0.0001", "0.00025", "0.0025", "0.005")} == {
        "0.0001": 1,
        "0.00025": 2,
        "0.0025": 2,
        "0.005": 4,
    }
    assert (buckets["5.0"], buckets["10.0"], buckets["10000.0"], buckets["+Inf"]) == (4, 5, 5, 6)
    totals = {each.name.rpartition("_")[2]: each.value for each in found if "le" not in each.labels}
    assert totals == {"count": 6, "sum": pytest.approx(20_007.0064)}


def test_no_series_shows_when_it_was_created() -> None:
    text = rendered([stats(handled(1), durations(1))], "openmetrics")

    assert "_created" not in text


def test_only_openmetrics_has_exemplars_and_each_is_in_its_bucket() -> None:
    early, late = bucket_of(0.0012), bucket_of(0.002)
    report = stats(
        durations(
            *(0.0012, 0.002, 30_000),
            exemplars={
                early: ("1" * 32, 0.0012, 1_000),
                late: (TRACE, 0.002, 2_000),
                len(BOUNDS): ("2" * 32, 30_000.0, 1_500),
            },
        )
    )
    found = {
        each.labels["le"]: each.exemplar
        for each in samples([report], "openmetrics")
        if each.exemplar
    }

    assert set(found) == {"0.0025", "+Inf"}
    assert found["0.0025"] is not None
    assert (found["0.0025"].labels, found["0.0025"].value) == ({"trace_id": TRACE}, 0.002)
    assert float(found["0.0025"].timestamp or 0) == 2
    assert all(each.exemplar is None for each in samples([report], "text"))


def test_a_trace_id_that_is_too_long_for_openmetrics_is_left_out() -> None:
    report = stats(durations(1, exemplars={bucket_of(1): ("f" * 5_000, 1.0, 1_000)}))

    assert "trace_id" not in rendered([report], "openmetrics")


def test_the_services_of_one_process_are_beside_each_other() -> None:
    reports = [stats(handled(1)), stats(handled(2), service="till")]
    found = families(reports, "text")["trunkline_messages_handled"].samples

    assert {each.labels["service"]: each.value for each in found} == {"library": 1, "till": 2}


def test_the_versions_of_the_bus_and_of_the_service_are_labels_of_a_series() -> None:
    reports = [stats(version="2.1"), stats(service="till")]
    found = families(reports, "text")["trunkline_build_info"].samples

    assert [(each.labels, each.value) for each in found] == [
        ({"service": name, "version": library_version(), "service_version": version}, 1)
        for name, version in (("library", "2.1"), ("till", ""))
    ]


def test_a_series_of_a_newer_version_is_ignored_and_so_is_its_label() -> None:
    newer = Series(name="messages.parked", labels={}, value=1)
    report = stats(newer, handled(2, region="north"), handled(3, region="south"))

    found = families([report], "text")
    assert set(found) == {"trunkline_messages_handled", "trunkline_build_info"}
    assert [each.value for each in found["trunkline_messages_handled"].samples] == [5]


def test_a_label_that_an_older_version_does_not_report_is_empty() -> None:
    report = stats(Series(name=HANDLED.name, labels={"operation": "book.find"}, value=1))

    assert samples([report])[0].labels == {
        **dict.fromkeys(HANDLED.labels, ""),
        "operation": "book.find",
        "service": "library",
    }


HOSTILE = (
    '"',
    "\\",
    "\n",
    '\\"',
    "\\n",
    '"} 1\ntrunkline_ready{service="x"} 0\n# EOF\n',
    "# TYPE trunkline_ready counter",
    "\r\n",
    "\0",
    "\x1b[31m",
    "\u2028",
    "\ud800",
    "é",
    "{",
    "}",
    ",",
    "=",
    " # {trace_id=",
    "x" * 500,
    "",
)


@pytest.mark.parametrize("chosen", FORMATS)
def test_no_value_of_a_label_breaks_the_format(chosen: Format) -> None:
    source = random.Random(15)
    for _ in range(60):
        texts = ["".join(source.choices(HOSTILE, k=source.randint(1, 4))) for _ in range(12)]
        values = iter(texts)
        labels = {name: next(values) for name in HANDLED_LABELS}
        trace_id = next(values)
        report = stats(
            handled(7, **labels),
            durations(0.2, exemplars={bucket_of(0.2): (trace_id, 0.2, 1_000)}),
            ready(1),
            version=next(values),
        ).model_copy(update={"service": next(values)})
        found = families([report], chosen)

        assert [each.value for each in found["trunkline_messages_handled"].samples] == [7]
        assert [each.value for each in found["trunkline_ready"].samples] == [1]
        assert len(found) == 4
        read = found["trunkline_messages_handled"].samples[0].labels
        for name, value in labels.items():
            assert read[name] == value[:200].encode(errors="replace").decode()


def test_a_long_scrape_pauses_so_that_the_event_loop_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    report = stats(*(durations(1, operation=f"book.{number}") for number in range(50)))
    monkeypatch.setattr(families_module, "TURN_SECONDS", 1000)
    rendered([report], "text")
    assert pauses == []

    monkeypatch.setattr(families_module, "TURN_SECONDS", -1)
    text = rendered([report], "text")

    assert len(pauses) >= 50
    assert text.count("_count{") == 50


ACCEPTED: dict[str, Format] = {
    "": "text",
    "*/*": "text",
    "text/plain": "text",
    "application/openmetrics-text": "openmetrics",
    "application/openmetrics-text; version=1.0.0; charset=utf-8": "openmetrics",
    'Application/OpenMetrics-Text;version="1.0.0"': "openmetrics",
    # Prometheus 2.42
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1": "openmetrics",
    # Prometheus 3
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;"
    "escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2": "openmetrics",
    "application/openmetrics-text;q=0.2, text/plain;q=0.8": "text",
    "application/openmetrics-text;q=0": "text",
    "application/openmetrics-text;q=nan": "text",
    "application/openmetrics-text;q=9": "text",
    "application/openmetrics-text;version=2.0.0": "text",
    "application/openmetrics-text;version=é": "text",
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily": "text",
    ";;,=,;q=,": "text",
}


@pytest.mark.parametrize("accept", ACCEPTED)
def test_the_scraper_chooses_the_format(accept: str) -> None:
    assert choose_format(accept) == ACCEPTED[accept]


def test_the_names_of_an_applications_own_metrics_are_not_taken() -> None:
    registry = CollectorRegistry()
    registry.register(StatsCollector(lambda: pytest.fail("the registration reads no values")))

    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(StatsCollector(list))
    assert metric_name(SENT) != metric_name(HANDLER_SECONDS)


async def test_an_application_registers_the_metrics_of_its_bus_beside_its_own() -> None:
    registry = CollectorRegistry()
    visits = Counter("visits", "Visits of the web page.", registry=registry)
    async with MemoryBuses() as buses:
        web, till = await buses.bus("web"), await buses.bus("till")
        registry.register(collector(web, till))
        await web.publish(BookSold(title="Emma"))
        visits.inc()
        # The server of an application collects in a thread of its own.
        text = (await asyncio.to_thread(render, registry, "text")).decode()

    found = {each.name: each for each in parse_text(text)}
    assert [each.labels["service"] for each in found["trunkline_messages_sent"].samples] == ["web"]
    assert {each.labels["service"] for each in found["trunkline_ready"].samples} == {"web", "till"}
    assert found["visits"].samples[0].value == 1
