import pytest

from benchmarks.actors import ours
from benchmarks.actors.stage import Order, percentile, summary
from benchmarks.page import page
from benchmarks.payload import FIRST, SIZE, Payload, fields
from benchmarks.peers import AIO_PIKA, OURS, PEERS
from benchmarks.report import TARGETS, Target, cpu, ratio, value
from benchmarks.works import sides

WORKS = {
    "rpc100": {
        OURS: [
            {"rate": 900.0, "p50": 1.0},
            {"rate": 100.0, "p50": 9.0},
            {"rate": 800.0, "p50": 1.1},
        ],
        AIO_PIKA: [
            {"rate": 100.0, "p50": 5.0},
            {"rate": 20.0, "p50": 9.0},
            {"rate": 200.0, "p50": 4.4},
        ],
    },
    "waiting0": {OURS: [{"rss": 60.0}]},
    "waiting1000000": {OURS: [{"rss": 65.0, "rate": 5.0, "waiting": 990_000}]},
}
RUN = {
    "date": "2026-01-01",
    "rounds": 3,
    "rabbitmq": "3.10.8",
    "broker": "a private node",
    "machine": dict.fromkeys(
        ("processor", "cores", "memory_gb", "system", "python", "pydantic", "load_before"), 1
    ),
    "names": {key: peer.title for key, peer in PEERS.items()},
    "versions": {"Trunkline": "0"},
    "absent": {"C with librabbitmq": "no C compiler is here"},
    "notes": ["it rained"],
    "works": WORKS,
}


def target(start: str) -> Target:
    return next(each for each in TARGETS if each.title.startswith(start))


def test_a_rate_is_the_median_of_the_rounds_with_their_range() -> None:
    found = value(WORKS, "rpc100", OURS)
    assert found is not None
    assert (found.low, found.median, found.high) == (100, 800, 900)


def test_a_ratio_is_the_median_of_the_rounds_ratios_and_not_the_ratio_of_medians() -> None:
    found = ratio(WORKS, "rpc100", OURS, AIO_PIKA)
    assert found is not None
    assert (found.low, found.median, found.high) == (4, 5, 9)


@pytest.mark.parametrize(
    ("work", "peer"), [("rpc100", "celery"), ("rpc1", AIO_PIKA), ("none", "nobody")]
)
def test_who_is_missing_has_no_figures(work: str, peer: str) -> None:
    assert value(WORKS, work, peer) is None
    assert ratio(WORKS, work, OURS, peer) is None
    assert cpu(WORKS, work, peer) == {}


def test_a_target_is_reached_not_reached_or_not_measured() -> None:
    assert target("RPC, 100").reached(WORKS) is False
    assert target("memory").measured(WORKS) == 5
    assert target("memory").reached(WORKS) is True
    assert target("publish").reached(WORKS) is None


def test_cpu_is_the_median_by_side_and_a_side_may_be_unseen() -> None:
    rounds = [
        {"cpu": {"client": 5.0, "broker": 1.0}},
        {"cpu": {"client": 7.0}},
        {"cpu": {"client": 6.0}},
    ]
    assert cpu({"w": {"p": rounds}}, "w", "p") == {"client": 6.0, "broker": 1.0}
    assert sides({"cpu": [1e-6, 3e-6, 0.0]}, {"client": [1], "server": [2], "broker": [3]}, 2) == {
        "client": 0.5,
        "server": 1.5,
    }


def test_percentiles_are_by_nearest_rank_in_milliseconds() -> None:
    assert percentile([1, 2, 3], 0.5) == 2
    assert summary([number / 1000 for number in range(1000)]) == {
        "p50": 500,
        "p99": 990,
        "p999": 999,
    }
    assert summary([]) == {}


def test_an_order_is_a_verb_and_words() -> None:
    order = Order.parse("rpc in_flight=100 seconds=1.5 watch=4,5\n")
    assert (order.verb, order.integer("in_flight"), order.real("seconds"), order.watch) == (
        "rpc",
        100,
        1.5,
        [4, 5],
    )
    assert Order.parse("rpc watch=").watch == []


@pytest.mark.parametrize("model", [ours.Echo, ours.Echoed, ours.Nap, ours.Happened, ours.Work])
def test_everybody_sends_the_same_bytes(model: type[ours.Echoed]) -> None:
    theirs = Payload.model_validate(fields(FIRST)).model_dump_json()
    assert len(theirs) == SIZE
    assert model.model_validate(fields(FIRST)).model_dump_json() == theirs


def test_the_page_names_what_was_not_reached_who_was_missing_and_what_was_noticed() -> None:
    written = page(RUN)
    assert "| at least 6 | 5.00 |" in written
    assert "| **not reached** |" in written
    assert "not measured |" in written
    assert "990,000 wait" in written
    assert "C with librabbitmq was not measured: no C compiler is here" in written
    assert "it rained" in written
