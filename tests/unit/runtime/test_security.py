"""The errors for missing keys name the settings of the selected `BUS_AUTH`."""

import asyncio

import pytest

from bus.errors import ConfigurationError
from bus.runtime.bus import Bus
from bus.runtime.operator_rights import authorized_revealer
from bus.settings import Settings


@pytest.mark.parametrize(
    ("auth", "advice"), [("on", "BUS_OPERATOR_KEY and BUS_JWKS"), ("dev", "BUS_KEY")]
)
def test_an_operator_without_a_key_is_asked_for_the_setting_that_is_read(
    auth: str, advice: str
) -> None:
    settings = Settings.model_validate({"auth": auth})
    with pytest.raises(ConfigurationError, match=f"requires an operator's key.* set {advice}[ .]"):
        asyncio.run(authorized_revealer(settings))


@pytest.mark.parametrize(
    ("auth", "advice"),
    [
        ("on", "Create a key with `bus keys new ledger`, and set the variables that it prints. "),
        ("dev", "Set it to the same secret text of at least 32 bytes for all services. "),
    ],
)
def test_a_service_without_a_key_reads_which_key_its_setting_requires(
    auth: str, advice: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Bus("ledger", settings=Settings.model_validate({"auth": auth}))
    cause, _, remedy = str(refused.value).partition(". ")
    assert cause == "BUS_KEY is not set, so ledger cannot sign messages"
    assert remedy.startswith(advice)
