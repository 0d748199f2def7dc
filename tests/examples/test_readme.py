from pathlib import Path

import pytest

from bus.operations.brokers.broker import Broker
from tests.broker import management_url
from tests.examples.capture import CAPTURE, picture
from tests.examples.page import ROOT, followed


async def test_the_readme_does_what_it_says_and_its_capture_shows_it(
    shared_broker: Broker, vhost_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `bus broker` shows this address in the command that the reader pastes.
    monkeypatch.setenv("BUS_MANAGEMENT_URL", management_url(shared_broker))
    async with followed(ROOT / "README.md", tmp_path, vhost_url) as terminals:
        pass
    assert picture(terminals) == CAPTURE.read_text(encoding="utf-8"), (
        "draw it again: BUS_URL=… BUS_MANAGEMENT_URL=… python -m tests.examples.capture"
    )
