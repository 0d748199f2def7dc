from pathlib import Path

import pytest

from bus.operations.brokers.node_files import write_node_files


@pytest.mark.parametrize(
    ("password", "term"),
    [("plain-1_A", "plain-1_A"), ("a b#%$'", "a b#%$'"), ('\\"', r"\\\"")],
)
def test_a_password_of_any_characters_is_an_erlang_string(
    tmp_path: Path, password: str, term: str
) -> None:
    write_node_files(tmp_path, password, {}, ())
    written = (tmp_path / "advanced.config").read_text()
    assert written == f'[{{rabbit, [{{default_pass, <<"{term}">>}}]}}].\n'
    lines = (tmp_path / "rabbitmq.conf").read_text().splitlines()
    assert (f"default_pass = {password}" in lines) is (password == "plain-1_A")
