"""The turns of the senders while a dependency is down, on a clock that a test moves."""

from bus.messaging.resilience.circuit_breaker import CircuitBreaker
from bus.messaging.resilience.dependency import Dependency
from bus.messaging.resilience.dependency_admission import DependencyAdmission
from bus.messaging.timers import loop_time
from bus.runtime import dependency_gate
from bus.runtime.dependency_gate import DependencyGate
from bus.runtime.held_messages import HeldMessage

EHR = Dependency(name="ehr", failures=(OSError,), consecutive_failures=1, probe_interval=10)


class World:
    """A gate that is open, after a failed message of the sender `evil`."""

    def __init__(self) -> None:
        self.now = 1000.0
        breaker = CircuitBreaker(
            EHR.policy,
            "ehr",
            "dependency",
            lambda: self.now,
            lambda: self.now,
            lambda _info: None,
        )
        self.gate = DependencyGate("ledger", DependencyAdmission(EHR, breaker))
        permit = self.gate.enter("evil", 60)
        assert permit is not None
        self.gate.fail(permit, OSError())

    def hold(self, *senders: str) -> list[HeldMessage]:
        messages = [
            HeldMessage(loop_time() + 900, sender, next(self.gate.arrivals)) for sender in senders
        ]
        for message in messages:
            self.gate.hold(message, 60)
        return messages

    def probe(self) -> None:
        """Let a probe of a held message fail."""
        self.now += 10
        self.gate._check()


async def started_by(world: World, messages: list[HeldMessage]) -> list[int]:
    """Let probes fail until each message was one. Return the messages in this order."""
    started: list[int] = []
    while len(started) < len(messages):
        world.probe()
        (new,) = (n for n, each in enumerate(messages) if each.permit and n not in started)
        started.append(new)
        permit = messages[new].permit
        assert permit is not None
        world.gate.fail(permit, OSError())
    return started


async def test_the_senders_of_held_messages_take_turns_as_the_probe() -> None:
    world = World()
    messages = world.hold("evil", "evil", "shop", "evil", "desk", "shop")
    assert await started_by(world, messages) == [0, 2, 4, 1, 5, 3]


async def test_a_request_leaves_the_probe_to_the_held_message_of_another_sender() -> None:
    world = World()
    world.now += 10
    request = world.gate.enter_at_once("evil", 300)
    assert request is not None
    world.gate.fail(request, OSError())
    (held,) = world.hold("shop")
    world.now += 10
    assert world.gate.enter_at_once("evil", 300) is None
    assert held.permit is not None
    world.gate.succeed(held.permit)
    assert not world.gate.is_open


async def test_the_number_of_senders_that_had_a_probe_is_bounded() -> None:
    world = World()
    for number in range(dependency_gate.MAX_SENDERS + 10):
        world.now += 10
        permit = world.gate.enter(f"s{number}", 60)
        assert permit is not None
        world.gate.fail(permit, OSError())
    assert len(world.gate._probed) <= dependency_gate.MAX_SENDERS
