"""The decision that a job was never submitted."""

import pytest

from bus.messaging.jobs.absence import Evidence, judge, live_instances, passed_at
from bus.messaging.ports.store import InstanceBeat


def beat(instance: str, seen_at: float, recorded_until: float = 0.0) -> InstanceBeat:
    return InstanceBeat(instance=instance, seen_at=seen_at, recorded_until=recorded_until)


def test_a_silent_instance_and_a_marker_are_not_live_instances() -> None:
    beats = [beat("a", 100), beat("b", 41), beat("c", 40), beat("marker:1", 100)]
    assert live_instances(beats) == {"a", "b"}
    assert passed_at("marker:1", beats) == 100
    assert passed_at("marker:2", beats) is None
    assert live_instances([]) == set()


@pytest.mark.parametrize(
    ("before", "until", "evidence"),
    [
        ({"a"}, {"a": 11}, Evidence.COMPLETE),
        ({"a"}, {"a": 10}, Evidence.INCOMPLETE),
        ({"a"}, {"a": 9}, Evidence.INCOMPLETE),
        ({"a", "b"}, {"a": 11, "b": 11}, Evidence.COMPLETE),
        ({"a", "b"}, {"a": 11, "b": 9}, Evidence.INCOMPLETE),
        ({"a"}, {"a": 11, "new": 0}, Evidence.INCOMPLETE),
        ({"a", "stopped"}, {"a": 11}, Evidence.VOID),
    ],
)
def test_a_job_is_absent_only_if_each_instance_has_recorded_what_it_received_before_the_marker(
    before: set[str], until: dict[str, float], evidence: Evidence
) -> None:
    beats = [beat(name, 12, recorded) for name, recorded in until.items()]
    assert judge(frozenset(before), beats, passed=10) is evidence
