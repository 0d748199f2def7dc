"""The output of `bus contracts usage`."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import pytest
from rich.console import Console

from bus.cli import contract_usage
from bus.cli.contract_usage import ask_usage, load_catalog, print_usage, select, usage_to_json
from bus.cli.output import EscapingConsole
from bus.errors import NotFound, Unavailable
from bus.operations.contract_usage import (
    Caller,
    ContractUsage,
    Server,
    UsageReport,
    Watched,
)
from bus.settings import load_settings


class Silence:
    """An asker that nobody answers."""

    async def ask(self, *_: object, **__: object) -> list[object]:
        return []


NOW = 1_796_000_000
START = NOW * 1000 - 3_600_000
OLD = ContractUsage(
    name="ledger.total",
    version=1,
    kind="request",
    servers=(Server(service="ledger", instances=2, handled=1200, last=NOW * 1000 - 5_000),),
    callers=(
        Caller(service="archive", handled=200, last=NOW * 1000 - 7_200_000),
        Caller(service="office", sent=1001, handled=1000, last=NOW * 1000 - 5_000),
    ),
    latest=2,
)
NEW = ContractUsage(
    name="ledger.total",
    version=2,
    kind="request",
    servers=(Server(service="ledger", instances=2),),
    latest=2,
)
EVENT = ContractUsage(
    name="ledger.closed",
    version=1,
    kind="event",
    servers=(Server(service="audit", subscription="slow", instances=1),),
    callers=(Caller(service="ledger", sent=1, last=NOW * 1000),),
)
DECLARED = ContractUsage(name="ledger.add", version=1, kind="request")
REPORT = UsageReport(
    contracts=(DECLARED, EVENT, OLD, NEW),
    watched=(
        Watched(service="ledger", instance="l", since=START),
        Watched(service="office", instance="o", since=START + 60_000),
    ),
)


def printed(report: UsageReport, *, width: int = 200, has_catalog: bool = True) -> str:
    text = io.StringIO()
    console: Console = EscapingConsole(file=text, width=width)
    print_usage(report, console, has_catalog=has_catalog, now=NOW)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def local(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000).astimezone():%Y-%m-%d %H:%M:%S}"


BELOW = f"""
old version: ledger.total.v1 (latest v2) is sent by archive, office
without a sender: ledger.add.v1, ledger.total.v2 (served by ledger)
counted by 2 instances of 2 services, the first (ledger) since {local(START)}, \
the last (office) since {local(START + 60_000)}. Instances that have stopped are not counted."""


def test_the_table_has_the_servers_and_senders_of_each_version() -> None:
    assert printed(REPORT) == (
        "type              kind     served by                                   sent by\n"
        "ledger.closed.v1  event    audit (slow): 1 instance, handled 0         "
        "ledger: sent 1, 0s ago\n"
        "ledger.total.v1   request  ledger: 2 instances, handled 1,200, 5s ago  "
        "archive: handled 200, 2h ago\n"
        "                                                                       "
        "office: sent 1,001, handled 1,000, 5s ago\n"
        "ledger.total.v2   request  ledger: 2 instances, handled 0              -\n" + BELOW
    )


def test_on_a_narrow_terminal_each_type_has_its_own_lines() -> None:
    assert printed(REPORT, width=60).startswith(
        "ledger.closed.v1, event\n"
        "  served by audit (slow): 1 instance, handled 0\n"
        "  sent by ledger: sent 1, 0s ago\n"
        "ledger.total.v1, request\n"
        "  served by ledger: 2 instances, handled 1,200, 5s ago\n"
        "  sent by archive: handled 200, 2h ago\n"
        "  sent by office: sent 1,001, handled 1,000, 5s ago\n"
        "ledger.total.v2, request\n"
        "  served by ledger: 2 instances, handled 0\n"
        "  sent by no service\n"
    )


def test_the_lines_below_the_table_tell_what_is_not_counted() -> None:
    alone = UsageReport(
        contracts=(EVENT,),
        watched=(Watched(service="ledger", instance="l", since=START),),
        left_out=3,
        combined=1200,
    )
    assert printed(alone, has_catalog=False).endswith(
        "\n\nno contracts are loaded (--contracts), so only those of services are shown\n"
        "not complete: 3 entries of answers are left out, and 1,200 messages have no contract, "
        "because an instance has too many\n"
        f"counted by 1 instance of 1 service, since {local(START)}. Instances that have stopped "
        "are not counted."
    )


def test_a_type_selects_one_version_and_a_name_selects_all() -> None:
    assert select(REPORT, None) is REPORT
    assert select(REPORT, "ledger.total.v1").contracts == (OLD,)
    assert select(REPORT, "ledger.total").contracts == (OLD, NEW)


def test_an_unknown_type_has_the_nearest_name() -> None:
    with pytest.raises(NotFound) as caught:
        select(REPORT, "ledger.totl.v1")
    assert str(caught.value) == (
        "no live instance and no loaded contract knows 'ledger.totl.v1'; did you mean "
        "'ledger.total.v1' or 'ledger.total.v2'? "
        "Run `bus contracts usage` for all types."
    )
    with pytest.raises(NotFound, match=r"knows 'zzz'\. Run"):
        select(REPORT, "zzz")


def test_the_json_has_the_type_and_the_counts_of_each_version() -> None:
    found = json.loads(json.dumps(usage_to_json(select(REPORT, "ledger.total.v1"))))
    assert found["since"] == START
    assert found["instances"][1] == {
        "service": "office",
        "instance": "o",
        "since": START + 60_000,
    }
    (usage,) = found["contracts"]
    assert (usage["type"], usage["old"], usage["used"]) == ("ledger.total.v1", True, True)
    assert usage["callers"][0] == {
        "service": "archive",
        "sent": 0,
        "handled": 200,
        "last": NOW * 1000 - 7_200_000,
    }


def test_without_a_package_of_contracts_only_those_of_services_are_shown(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    assert load_catalog([]) == ()


async def test_without_live_instances_the_usage_is_unknown_and_not_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @asynccontextmanager
    async def silence(*_: object, **__: object) -> AsyncIterator[Silence]:
        yield Silence()

    monkeypatch.setattr(contract_usage, "open_asker", silence)
    with pytest.raises(Unavailable, match=r"^no instance of a service answered within 0\.2 s\. "):
        await ask_usage(load_settings(auth="off"), (), 0.2)
