import json

import pytest

from bus.operations.brokers.broker_options import BrokerOptions
from bus.operations.brokers.node_state import NodeState

STATE = NodeState(
    name="bus-0123abcd@localhost",
    password="a b#%",
    port=20001,
    management_port=20002,
    rabbitmq="3.10.8",
)
WRONG: dict[str, list[object]] = {
    "name": [None, "", "rabbit@host", "bus-0123abcd@localhost\n", "bus-../../x@localhost"],
    "password": [None, "", "\x1b[31m", "ü", "x" * 201],
    "port": [None, True, "20001", 20001.0, 0, 80, -1, 99999, 20002],
    "management_port": [None, False, 65536, 20001],
    "rabbitmq": ["", "\x1b[31m", 3, "x" * 41],
    "surprise": [1],
}


def test_a_state_is_read_as_it_was_written() -> None:
    assert NodeState.from_json(STATE.as_json()) == STATE


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_value_that_this_program_would_not_write_is_refused(name: str, value: object) -> None:
    changed = {**json.loads(STATE.as_json()), name: value}
    with pytest.raises(ValueError, match=r"a value is not possible|is missing or not known"):
        NodeState.from_json(json.dumps(changed))


@pytest.mark.parametrize("text", ["", "[]", "1", "{}", "[" * 10_000, '{"port": ' + "9" * 5_000])
def test_a_text_that_is_not_a_state_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not JSON|is missing"):
        NodeState.from_json(text)


def test_options_replace_what_the_last_run_had() -> None:
    assert STATE.updated(BrokerOptions()) == STATE
    changed = STATE.updated(BrokerOptions(port=20003, password="other"))
    assert (changed.port, changed.management_port, changed.password) == (20003, 20002, "other")
