import io
import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from rich.console import Console
from rich.live import Live

from bus.cli.queue_table import age, notes, table
from bus.cli.queue_watch import update_live
from bus.errors import ConfigurationError, Unavailable
from bus.messaging.topology.names import QueueName, parse_queue_name
from bus.operations.queue_inspection import (
    BrokerAddress,
    ManagementListing,
    QueueFilter,
    QueueReport,
    QueueStatus,
    fetch_listing,
    may_declare_passively,
    merge_depths,
    select_names,
)
from bus.settings import Settings
from bus.transports.rabbitmq.handshake import BrokerInfo
from bus.transports.rabbitmq.queue_depth import QueueDepth
from tests.unit.http_stub import answering

SERVER = BrokerInfo(
    product="RabbitMQ", version="4.0.5", cluster="rabbit@here", platform="Erlang/OTP 26"
)
WHERE = BrokerAddress(url="amqp://clerk:secret@127.0.0.1/")
UNLISTED = ManagementListing(why="nobody answers")
WORK, DEAD, ASK = "library.jobs.scan.v1", "library.jobs.scan.v1.dead", "library.requests.find.v1"


def named(name: str) -> QueueName:
    read = parse_queue_name(name)
    assert read
    return read


def row(name: str, **values: Any) -> ManagementListing:
    return ManagementListing(
        rows={name: {"name": name, "state": "running", "type": "quorum", **values}}
    )


def test_both_sources_are_where_the_settings_say() -> None:
    settings = Settings(url=SecretStr(WHERE.url), management_url=SecretStr("http://127.0.0.1:1"))
    assert BrokerAddress.of(settings, renew=True) == replace(
        WHERE, management_url="http://127.0.0.1:1"
    )
    assert (
        BrokerAddress.of(settings.model_copy(update={"management_url": None}), renew=True) == WHERE
    )


# --- Selection ---


def test_a_request_queue_is_asked_for_by_amqp_only_where_nothing_else_tells_and_only_once() -> None:
    assert not may_declare_passively(named(ASK), WHERE, row(ASK))
    assert may_declare_passively(named(ASK), WHERE, UNLISTED)
    assert not may_declare_passively(named(ASK), replace(WHERE, renew=False), UNLISTED)


def test_quorum_queues_are_always_asked_for_and_exclusive_ones_never() -> None:
    assert may_declare_passively(named(WORK), replace(WHERE, renew=False), row(WORK))
    assert not may_declare_passively(named("library.replies.host-1-a"), WHERE, UNLISTED)


def test_a_service_has_its_own_queues_and_the_bus_all_of_its() -> None:
    listing = ManagementListing(rows={name: {} for name in ("celery", "reader.jobs.read.v1", WORK)})
    assert [each.name for each in select_names(QueueFilter(), listing)] == [
        WORK,
        "reader.jobs.read.v1",
    ]
    assert [each.name for each in select_names(QueueFilter(service="library"), listing)] == [WORK]
    assert [
        each.name
        for each in select_names(QueueFilter(names=(WORK, ASK), service="library"), listing)
    ] == [WORK, ASK]


def test_without_a_list_a_service_is_guessed_and_all_is_an_error_that_says_what_to_do() -> None:
    assert [
        each.name
        for each in select_names(QueueFilter(service="library", guesses=(WORK,)), UNLISTED)
    ] == [WORK]
    with pytest.raises(
        Unavailable, match=r"nobody answers.*BUS_MANAGEMENT_URL.*MODULE:ROUTER .*--service"
    ):
        select_names(QueueFilter(), UNLISTED)


# --- Merge of the two sources ---


@pytest.mark.parametrize(
    ("depth", "sample", "expected"),
    [
        # (ready, consumers), (ready, unacked), and (ready, unacked, sampled) of the result
        ((8, 1), (10, 0), (10, 0, True)),
        ((8, 1), (8, 2), (8, 2, True)),
        ((10, 0), (8, 2), (8, 2, True)),
        ((10, 0), (0, 0), (10, 0, False)),
        ((10, 1), (None, None), (10, None, False)),
    ],
    ids=["a consumer came", "a consumer works", "a consumer went", "nobody consumes", "new queue"],
)
def test_the_messages_of_a_queue_are_counted_at_one_moment(
    depth: tuple[int, int],
    sample: tuple[int | None, int | None],
    expected: tuple[int, int | None, bool],
) -> None:
    values = {"messages_ready": sample[0], "messages_unacknowledged": sample[1], "consumers": 7}
    state = merge_depths(
        named(WORK), QueueDepth(ready=depth[0], consumers=depth[1]), row(WORK, **values), now=100
    )
    assert (state.ready, state.unacked, state.is_sampled) == expected
    assert (state.consumers, state.type) == (depth[1], "quorum")


def test_a_queue_without_its_leader_says_zero_by_amqp_and_is_not_believed() -> None:
    state = merge_depths(
        named(WORK), QueueDepth(), row(WORK, state="minority", messages_ready=7), now=100
    )
    assert (state.ready, state.last_error) == (7, "minority")


def test_what_nobody_tells_is_nothing_and_not_zero() -> None:
    state = merge_depths(named(WORK), QueueDepth(ready=3, consumers=2), UNLISTED, now=100)
    assert (state.unacked, state.oldest, state.type) == (None, None, None)
    assert merge_depths(named(ASK), None, UNLISTED, now=100).consumers is None


def test_the_oldest_message_is_as_old_as_its_timestamp_and_never_younger_than_now() -> None:
    assert (
        merge_depths(
            named(ASK), None, row(ASK, messages_ready=1, head_message_timestamp=40), now=100
        ).oldest
        == 60
    )
    assert (
        merge_depths(
            named(ASK),
            None,
            row(ASK, messages_unacknowledged=1, head_message_timestamp=140),
            now=100,
        ).oldest
        == 0
    )
    assert (
        merge_depths(
            named(ASK), None, row(ASK, messages_ready=1, head_message_timestamp=""), now=100
        ).oldest
        is None
    )


def test_an_empty_queue_has_no_oldest_message_whatever_the_statistics_still_say() -> None:
    assert (
        merge_depths(
            named(ASK),
            None,
            row(ASK, messages_ready=0, messages_unacknowledged=0, head_message_timestamp=40),
            now=100,
        ).oldest
        is None
    )


def test_a_queue_that_is_not_there_does_not_exist() -> None:
    assert not merge_depths(named(WORK), QueueDepth(missing=True), UNLISTED, now=100).exists
    assert not merge_depths(named(ASK), None, row(WORK), now=100).exists
    assert (
        merge_depths(
            named(WORK), QueueDepth(last_error="its node is down"), UNLISTED, now=100
        ).last_error
        == "its node is down"
    )


# --- Management API ---


async def test_statistics_and_totals_are_laid_together() -> None:
    queues = [{"name": WORK, "messages_ready": 5}]
    answers = {"/api/overview": {"cluster_name": "rabbit@here"}, "/api/queues/%2F": queues}
    with answering({path: json.dumps(each).encode() for path, each in answers.items()}) as stub:
        listing = await fetch_listing(replace(WHERE, management_url=stub.url), SERVER)
    assert listing.rows == {WORK: {"name": WORK, "messages_ready": 5}}
    assert sum("enable_queue_totals=true" in path for path, _ in stub.asked) == 1


async def test_the_api_of_another_broker_is_not_believed() -> None:
    with answering({"/api/overview": b'{"cluster_name": "rabbit@there"}'}) as stub:
        where = replace(WHERE, management_url=stub.url)
        with pytest.raises(ConfigurationError, match="different brokers"):
            await fetch_listing(where, SERVER)
    assert [path for path, _ in stub.asked] == ["/api/overview"]


async def test_the_api_of_another_broker_is_skipped_if_a_list_has_the_right_one() -> None:
    queues = json.dumps([{"name": WORK, "state": ["odd"], "consumers": "odd"}]).encode()
    right = {"/api/overview": b'{"cluster_name": "rabbit@here"}', "/api/queues/%2F": queues}
    wrong = {"/api/overview": b'{"cluster_name": "rabbit@there"}'}
    with answering(wrong) as other, answering({"/api/overview": b"{}"}) as odd:
        with answering(right) as stub:
            urls = f"{other.url},{odd.url},{stub.url}"
            listing = await fetch_listing(replace(WHERE, management_url=urls), SERVER)
        state = merge_depths(named(WORK), None, listing, now=100)
        assert (state.exists, state.consumers, state.last_error) == (True, None, None)
        urls = f"{odd.url},{other.url}"
        listing = await fetch_listing(replace(WHERE, management_url=urls), SERVER)
    assert listing.rows is None
    assert "unexpected content" in str(listing.why)


async def test_an_api_that_refuses_or_is_not_there_is_a_reason_and_no_error() -> None:
    with answering({}) as stub:
        listing = await fetch_listing(replace(WHERE, management_url=stub.url), SERVER)
    assert listing.rows is None
    assert "404" in str(listing.why)


# --- Table ---

STATES = (
    QueueStatus(name=WORK, service="library", role="jobs", ready=12, unacked=0, consumers=0),
    QueueStatus(
        name=DEAD, service="library", role="dead", work_queue=WORK, ready=2, unacked=1, consumers=0
    ),
    QueueStatus(
        name="library.replies.host-1-a",
        service="library",
        role="replies",
        ready=1,
        unacked=0,
        consumers=1,
    ),
    QueueStatus(
        name="library.replies.host-2-b",
        service="library",
        role="replies",
        ready=2,
        unacked=None,
        consumers=1,
    ),
    QueueStatus(
        name=ASK, service="library", role="requests", ready=0, unacked=3, consumers=2, oldest=200.0
    ),
    QueueStatus(
        name="library.retry.10m", service="library", role="retry", ready=1, unacked=0, consumers=0
    ),
    QueueStatus(
        name="library.retry.5s", service="library", role="retry", ready=4, unacked=0, consumers=0
    ),
    QueueStatus(
        name="library.unroutable.dead",
        service="library",
        role="dead",
        ready=0,
        unacked=0,
        consumers=0,
    ),
    QueueStatus(
        name="reader.events.library.scanned.v1", service="reader", role="events", exists=False
    ),
)
SEEN = QueueReport(server=SERVER, queues=STATES, at=0)
SHOWN = """\
queue                       ready unacked consumers oldest dead
library
  jobs.scan.v1                 12       0         0      -    3
  requests.find.v1              0       3         2     3m
  retry.5s                      4       0
  retry.10m                     1       0
  replies (2 instances)         3       -
reader
  events.library.scanned.v1     -       -         -      -    -"""


def printed(picture: QueueReport, width: int = 80) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table(picture))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()[1:])


def test_the_table_has_a_group_for_each_service_and_fits_a_terminal_of_80_columns() -> None:
    assert printed(SEEN) == SHOWN


def test_the_notes_say_what_somebody_should_do() -> None:
    assert list(notes(SEEN)) == [
        (
            f"[yellow]{WORK}: 12 ready and no consumer, although library runs; `bus services "
            "library` shows whether its consumer is paused. If not, start a worker that consumes "
            "it with `bus run`, or use `bus topology prune` if no router declares it[/]"
        ),
        f"[yellow]{DEAD}: 3 dead letters[/]",
        "[yellow]reader.events.library.scanned.v1 does not exist: no process serves it yet[/]",
    ]


def test_what_somebody_should_do_is_seen_on_a_screen_that_is_too_low_for_all_queues() -> None:
    written = io.StringIO()
    with Live(
        console=Console(file=written, force_terminal=True, width=80, height=6), auto_refresh=False
    ) as live:
        update_live(live, SEEN)
        frame = written.getvalue()
    assert f"{WORK}: 12 ready and no consumer" in frame


def test_what_could_not_be_told_is_told_with_the_reason() -> None:
    asked = QueueStatus(name=ASK, service="library", role="requests")
    told = list(
        notes(QueueReport(server=SERVER, queues=(asked,), without_management="no [answer]", at=0))
    )
    assert "no \\[answer]; set BUS_MANAGEMENT_URL" in told[0]
    assert "request queues are not inspected" in told[1]


def test_the_line_above_the_table_says_how_old_the_counts_can_be() -> None:
    console = Console(width=80, color_system=None)
    counted = QueueStatus(name=WORK, service="library", role="jobs", ready=0, is_sampled=True)
    current = replace(counted, is_sampled=False)
    heads = []
    for queues in ((current, counted), (current,)):
        with console.capture() as capture:
            console.print(table(replace(SEEN, queues=queues)))
        heads.append(capture.get().splitlines()[0].rstrip())
    assert [head.partition(", at ")[2][8:] for head in heads] == [", counts up to 5 s old", ""]


def test_no_queues_are_told_in_words() -> None:
    assert printed(QueueReport(server=SERVER, queues=(), at=0)) == "no queues of the bus"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.2, "0s"), (59.9, "59s"), (61, "1m"), (7200, "2h"), (200_000, "2d")],
)
def test_an_age_is_told_in_its_largest_unit(seconds: float | None, text: str) -> None:
    assert age(seconds) == text
