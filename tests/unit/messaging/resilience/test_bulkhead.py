"""The permits of a bulkhead: their order, and that none is lost."""

from collections.abc import Callable
from types import NoneType

from hypothesis import given
from hypothesis import strategies as st

from bus.errors import Unavailable
from bus.messaging.resilience.bulkhead import Bulkhead, Waiter


class Waiters:
    """The requests of a test that wait, and the order in which they continue."""

    def __init__(self, bulkhead: Bulkhead) -> None:
        self._bulkhead = bulkhead
        self.woken: list[int] = []
        self.by_number: dict[int, Waiter] = {}

    def enqueue(self, number: int, type_: str = "a") -> bool:
        """Return False if too many requests wait."""
        waiter = self.by_number[number] = Waiter(type_, lambda: self.woken.append(number))
        return self._bulkhead.enqueue(waiter)

    def leave(self, number: int) -> None:
        self._bulkhead.leave(self.by_number[number])


def full(max_in_flight: int = 2, max_waiting: int = 3) -> tuple[Bulkhead, Waiters]:
    """Return a bulkhead without a free permit."""
    bulkhead = Bulkhead(max_in_flight, max_waiting)
    assert all(bulkhead.admit() for _ in range(max_in_flight))
    return bulkhead, Waiters(bulkhead)


def test_a_bulkhead_has_so_many_permits_and_no_more() -> None:
    bulkhead, _ = full(2)
    assert not bulkhead.admit()
    bulkhead.release()
    assert bulkhead.admit()
    assert not bulkhead.admit()


def test_a_free_permit_goes_to_the_request_that_waits_longest() -> None:
    bulkhead, waiters = full()
    assert all(waiters.enqueue(number) for number in range(3))
    bulkhead.release()
    bulkhead.release()
    assert waiters.woken == [0, 1]
    assert [waiters.by_number[number].has_permit for number in range(3)] == [True, True, False]
    assert (bulkhead.in_flight, bulkhead.waiting) == (2, 1)


def test_no_new_request_overtakes_one_that_waits() -> None:
    bulkhead, waiters = full(1)
    waiters.enqueue(0)
    bulkhead.release()
    assert not bulkhead.admit()


def test_only_so_many_requests_wait() -> None:
    bulkhead, waiters = full(1, 2)
    assert [waiters.enqueue(number) for number in range(3)] == [True, True, False]
    assert Bulkhead(1, 0).enqueue(Waiter("a", lambda: None)) is False
    assert bulkhead.waiting == 2


def test_a_request_that_no_longer_waits_gets_no_permit() -> None:
    bulkhead, waiters = full(1)
    waiters.enqueue(0)
    waiters.enqueue(1)
    waiters.leave(0)
    waiters.leave(0)
    bulkhead.release()
    assert waiters.woken == [1]


def test_a_request_that_is_cancelled_after_it_got_a_permit_passes_the_permit_on() -> None:
    bulkhead, waiters = full(1)
    waiters.enqueue(0)
    waiters.enqueue(1)
    bulkhead.release()
    waiters.leave(0)
    waiters.leave(0)
    assert waiters.woken == [0, 1]
    assert bulkhead.in_flight == 1


def test_the_waiting_requests_of_one_type_are_refused_each_with_its_own_error() -> None:
    bulkhead, waiters = full(1, 10)
    for number, type_ in enumerate("abab"):
        waiters.enqueue(number, type_)
    bulkhead.refuse_waiting("a", lambda: Unavailable("down"))
    assert waiters.woken == [0, 2]
    errors = [waiters.by_number[number].error for number in range(4)]
    assert [type(each) for each in errors] == [Unavailable, NoneType, Unavailable, NoneType]
    assert errors[0] is not errors[2]
    bulkhead.release()
    assert waiters.woken == [0, 2, 1]
    assert bulkhead.waiting == 1


def test_a_request_with_a_permit_is_refused_only_before_it_continues() -> None:
    bulkhead, waiters = full(2)
    waiters.enqueue(0)
    waiters.enqueue(1)
    bulkhead.release()
    bulkhead.release()
    bulkhead.begin(waiters.by_number[0])
    bulkhead.refuse_waiting("a", lambda: Unavailable("down"))
    assert waiters.by_number[0].error is None
    assert isinstance(waiters.by_number[1].error, Unavailable)
    waiters.leave(1)
    assert bulkhead.in_flight == 1


def test_the_permit_of_a_refused_request_goes_to_the_next_one() -> None:
    bulkhead, waiters = full(1)
    waiters.enqueue(0, "a")
    waiters.enqueue(1, "b")
    bulkhead.release()
    bulkhead.refuse_waiting("a", lambda: Unavailable("down"))
    waiters.leave(0)
    assert waiters.woken == [0, 1]
    assert waiters.by_number[1].has_permit


class Model:
    """The naive bulkhead: two lists."""

    def __init__(self, max_in_flight: int, max_waiting: int) -> None:
        self.bulkhead = Bulkhead(max_in_flight, max_waiting)
        self.running: list[int] = []
        self.queue: list[int] = []
        self.waiters = Waiters(self.bulkhead)

    def call(self, number: int, choice: int) -> None:
        is_free = len(self.running) < self.bulkhead.max_in_flight
        assert self.bulkhead.admit() == is_free
        if is_free:
            assert self.queue == []
            self.running.append(number)
            return
        has_place = len(self.queue) < self.bulkhead.max_waiting
        assert self.waiters.enqueue(number, "ab"[choice % 2]) == has_place
        if has_place:
            self.queue.append(number)

    def end(self, _: int, choice: int) -> None:
        if self.running:
            self.running.pop(choice % len(self.running))
            self.bulkhead.release()
            self.pass_on()

    def cancel(self, _: int, choice: int) -> None:
        if self.queue:
            self.waiters.leave(self.queue.pop(choice % len(self.queue)))

    def cancel_at_its_turn(self, _: int, choice: int) -> None:
        if self.running and self.queue:
            self.running.pop(choice % len(self.running))
            self.bulkhead.release()
            self.waiters.leave(self.queue.pop(0))
            self.pass_on()

    def refuse(self, _: int, choice: int) -> None:
        type_ = "ab"[choice % 2]
        refused = [each for each in self.queue if self.waiters.by_number[each].type == type_]
        self.waiters.woken.clear()
        self.bulkhead.refuse_waiting(type_, Unavailable)
        assert self.waiters.woken == refused
        self.queue = [each for each in self.queue if each not in refused]

    def pass_on(self) -> None:
        """Check that the permit has gone to the first request of the queue."""
        if self.queue:
            number = self.queue.pop(0)
            assert self.waiters.woken[-1] == number
            self.bulkhead.begin(self.waiters.by_number[number])
            self.running.append(number)


Step = Callable[[Model, int, int], None]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                Model.call,
                Model.call,
                Model.end,
                Model.cancel,
                Model.cancel_at_its_turn,
                Model.refuse,
            ]
        ),
        st.integers(0, 30),
    ),
    max_size=60,
)


@given(max_in_flight=st.integers(1, 4), max_waiting=st.integers(0, 4), steps=STEPS)
def test_no_permit_is_lost_and_the_order_is_that_of_the_calls(
    max_in_flight: int, max_waiting: int, steps: list[tuple[Step, int]]
) -> None:
    model = Model(max_in_flight, max_waiting)
    bulkhead = model.bulkhead
    for number, (step, choice) in enumerate(steps):
        step(model, number, choice)
        assert (bulkhead.in_flight, bulkhead.waiting) == (len(model.running), len(model.queue))
    for _ in range(len(model.running) + len(model.queue)):
        bulkhead.release()
    assert sum(bulkhead.admit() for _ in range(max_in_flight + 1)) == max_in_flight


def test_ten_thousand_waiters_get_their_permits_in_order() -> None:
    bulkhead, waiters = full(1, 10_000)
    for number in range(10_000):
        waiters.enqueue(number)
    for _ in range(10_000):
        bulkhead.release()
    assert waiters.woken == list(range(10_000))
