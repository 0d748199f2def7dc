"""The live view: which instances are live after announcements and rounds of questions."""

from typing import Literal

import pytest

from bus.messaging.control import ALL, Announcement, Answer, Target
from bus.messaging.service_info import InstanceState
from bus.runtime.discovery.live_view import (
    MAX_UNVERIFIED_OF_SERVICE,
    MISSED_PINGS,
    LifeState,
    LiveInstance,
    LiveView,
)

State = Literal["starting", "ready", "not-ready", "draining"]
SERVICE = "billing"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def view(clock: Clock) -> LiveView:
    return LiveView(clock=clock, forget_after=60, max_instances=3)


def answer(
    instance: str = "a", state: State = "ready", *, started: int = 1, service: str = SERVICE
) -> Answer[InstanceState]:
    record = InstanceState(service=service, instance=instance, started=started, state=state)
    return Answer(record=record, seconds=0.25)


def announcement(
    event: Literal["started", "stopping"],
    instance: str = "a",
    *,
    started: int = 1,
    service: str = SERVICE,
) -> Announcement:
    return Announcement(
        service=service,
        instance=instance,
        started=started,
        state="ready" if event == "started" else "draining",
        event=event,
    )


STOPPING, STARTED = announcement("stopping"), announcement("started")
Event = Announcement | list[Answer[InstanceState]]
"""An announcement, or the answers of a round. A round begins 2 s after the event before it."""


def play(view: LiveView, clock: Clock, *events: Event, target: Target = ALL) -> None:
    for event in events:
        clock.now += 2
        if isinstance(event, Announcement):
            view.announce(event)
            continue
        begun, clock.now = clock.now, clock.now + 1
        view.add_round(event, target, begun=begun)


def only(view: LiveView) -> LiveInstance:
    (instance,) = view.instances()
    return instance


YES, NO = [answer()], list[Answer[InstanceState]]()


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([YES], "ready"),
        ([[answer(state="not-ready")]], "not-ready"),
        ([[answer(state="starting")], YES], "ready"),
        ([STARTED], "ready"),
        ([STARTED, STOPPING], "draining"),
        ([STOPPING], "draining"),
        ([YES, STOPPING], "draining"),
        ([YES, STOPPING, [answer(state="draining")]], "draining"),
        ([YES, STOPPING, NO], "gone"),
        ([YES, STOPPING, [answer(state="draining")], NO], "gone"),
        ([YES, STOPPING, STARTED, NO], "ready"),
        ([YES, STOPPING, YES, NO], "ready"),
        ([YES, NO], "ready"),
        ([YES, NO, NO], "ready"),
        ([YES, NO, NO, NO], "gone"),
        ([YES, NO, NO, YES, NO, NO], "ready"),
        ([YES, NO, NO, STARTED, NO, NO], "ready"),
        ([STARTED, YES, NO, NO, NO], "gone"),
        ([YES, NO, NO, NO, YES], "ready"),
        ([YES, NO, NO, NO, YES, NO, NO], "ready"),
        ([YES, STOPPING, NO, STARTED], "ready"),
        ([YES, [answer(started=2)]], "ready"),
    ],
)
def test_the_state_of_an_instance_follows_its_announcements_and_answers(
    view: LiveView, clock: Clock, events: list[Event], state: LifeState
) -> None:
    play(view, clock, *events)
    assert only(view).state == state
    assert only(view).is_live == (state != "gone")
    assert bool(view.live()) == (state != "gone")


@pytest.mark.parametrize(
    "events",
    [
        [YES, NO, NO, NO, YES],
        [YES, STOPPING, NO, STARTED],
        [YES, [answer(started=2)]],
        [YES, announcement("started", started=2)],
    ],
)
def test_an_instance_that_comes_back_is_new(
    view: LiveView, clock: Clock, events: list[Event]
) -> None:
    play(view, clock, *events[:-1])
    before = clock.now
    play(view, clock, events[-1])
    assert only(view).first_seen > before
    assert only(view).missed == 0


def test_an_instance_that_misses_two_rounds_is_the_same_instance(
    view: LiveView, clock: Clock
) -> None:
    play(view, clock, YES, NO, NO)
    assert (only(view).missed, only(view).first_seen) == (2, 102.25)
    play(view, clock, YES)
    assert (only(view).missed, only(view).first_seen) == (0, 102.25)


@pytest.mark.parametrize(
    "late", [[answer(started=1)], announcement("stopping", started=1)], ids=["answer", "stop"]
)
def test_a_late_message_of_the_process_before_changes_nothing(
    view: LiveView, clock: Clock, late: Event
) -> None:
    play(view, clock, [answer(started=2)])
    before = only(view)
    play(view, clock, late)
    assert (only(view).record, only(view).state) == (before.record, "ready")


def test_an_instance_that_started_during_a_round_has_not_missed_it(
    view: LiveView, clock: Clock
) -> None:
    begun = clock.now
    clock.now += 0.5
    view.announce(STARTED)
    view.add_round(NO, begun=begun)
    assert only(view).missed == 0


def test_an_answer_from_before_a_stop_does_not_hide_the_stop(view: LiveView, clock: Clock) -> None:
    play(view, clock, YES)
    begun = clock.now
    clock.now += 0.5
    view.announce(STOPPING)
    view.add_round([answer()], begun=begun)
    assert only(view).state == "draining"
    play(view, clock, NO)
    assert only(view).state == "gone"


@pytest.mark.parametrize(
    ("target", "missed"),
    [
        (ALL, 1),
        (Target(SERVICE), 1),
        (Target(SERVICE, "a"), 1),
        (Target(SERVICE, "b"), 0),
        (Target("shipping"), 0),
    ],
)
def test_only_an_instance_that_was_asked_can_miss_a_round(
    view: LiveView, clock: Clock, target: Target, missed: int
) -> None:
    play(view, clock, YES)
    play(view, clock, NO, target=target)
    assert only(view).missed == missed


def test_the_instances_of_one_service_are_selected_and_sorted(view: LiveView, clock: Clock) -> None:
    play(view, clock, [answer("b"), answer("a"), answer("c", service="shipping")])
    assert [each.key for each in view.live(SERVICE)] == [(SERVICE, "a"), (SERVICE, "b")]
    assert [each.key for each in view.instances()][-1] == ("shipping", "c")


def test_a_gone_instance_is_forgotten_after_a_while(view: LiveView, clock: Clock) -> None:
    play(view, clock, YES, STOPPING, NO)
    clock.now += 59
    assert only(view).state == "gone"
    clock.now += 1
    assert view.instances() == []


def test_a_full_view_forgets_gone_instances_first_and_then_ignores_new_ones(
    view: LiveView, clock: Clock
) -> None:
    play(view, clock, [answer("a"), answer("b"), answer("c")], STOPPING)
    play(view, clock, [answer("b"), answer("c")])
    play(view, clock, [answer("b"), answer("c"), answer("d")])
    assert [each.record.instance for each in view.instances()] == ["b", "c", "d"]
    play(view, clock, [answer("b"), answer("c"), answer("d"), answer("e")])
    assert [each.record.instance for each in view.instances()] == ["b", "c", "d"]
    assert view.ignored == 1


def test_the_record_of_an_answer_stays_when_its_instance_announces_a_stop(
    view: LiveView, clock: Clock
) -> None:
    play(view, clock, YES, STOPPING)
    assert not isinstance(only(view).record, Announcement)


def test_an_announced_instance_that_does_not_answer_the_next_round_is_forgotten(
    view: LiveView, clock: Clock
) -> None:
    play(view, clock, STARTED)
    assert [each.answered for each in view.live()] == [None]
    play(view, clock, NO)
    assert view.instances() == []


def test_repeated_announcements_do_not_keep_an_instance_that_never_answers(
    view: LiveView, clock: Clock
) -> None:
    play(view, clock, STARTED)
    begun = clock.now + 1
    play(view, clock, STARTED, announcement("started", started=2))
    view.add_round(NO, begun=begun)
    assert view.instances() == []


@pytest.mark.parametrize("event", ["started", "stopping"])
def test_a_flood_of_announcements_of_one_service_does_not_displace_the_others(
    clock: Clock, event: Literal["started", "stopping"]
) -> None:
    view = LiveView(clock=clock, max_instances=100)
    for number in range(1000):
        view.announce(announcement(event, str(number), service="mallory"))
    assert len(view.live("mallory")) == MAX_UNVERIFIED_OF_SERVICE
    play(view, clock, STARTED, [answer(), answer(service="shipping")])
    assert [each.record.service for each in view.live()] == [SERVICE, "shipping"]


def test_a_service_with_too_many_instances_leaves_room_for_the_others(clock: Clock) -> None:
    view = LiveView(clock=clock, max_instances=5, max_of_service=3)
    many = [answer(str(number), service="mallory") for number in range(9)]
    play(view, clock, many, [*many, answer(), answer("b")])
    assert [each.record.service for each in view.live()] == [SERVICE] * 2 + ["mallory"] * 3
    play(view, clock, *[[answer(), answer("b")]] * MISSED_PINGS)
    play(view, clock, [answer(), answer("b"), answer("new", service="mallory")])
    assert [each.record.instance for each in view.live("mallory")] == ["new"]
