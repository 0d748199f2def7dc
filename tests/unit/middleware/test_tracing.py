import re

import pytest

from bus.messaging.context import Context, correlated, handling
from bus.messaging.envelope import Envelope
from bus.middleware.tracing import tracing
from tests.unit.fakes import NoSender, envelope, virtual

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def traced(sent: Envelope, cause: Envelope | None = None) -> Envelope:
    async def inner(envelope: Envelope) -> Envelope:
        return envelope

    if cause is None:
        result = await tracing()(inner)(sent)
    else:
        with handling(Context(envelope=cause, bus=NoSender())):
            result = await tracing()(inner)(sent)
    assert result is not None
    return result


@virtual
async def test_what_nothing_caused_starts_a_trace_and_correlates_what_follows() -> None:
    sent = await traced(envelope(correlation_id=""))
    assert (sent.correlation_id, sent.causation_id) == ("m-1", None)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-03", sent.traceparent or "")
    with correlated("mine"):
        assert (await traced(envelope(correlation_id=""))).correlation_id == "mine"


@virtual
async def test_what_is_sent_while_handling_has_that_message_as_its_cause() -> None:
    cause = envelope(
        id="cause", correlation_id="whole", traceparent=f"00-{TRACE}-{SPAN}-01", tracestate="a=b"
    )
    with correlated("ignored"):
        sent = await traced(envelope(correlation_id=""), cause)
    assert (sent.correlation_id, sent.causation_id, sent.tracestate) == ("whole", "cause", "a=b")
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-01", sent.traceparent or "")
    assert SPAN not in (sent.traceparent or "")


@virtual
async def test_a_cause_without_a_correlation_id_is_one() -> None:
    assert (
        await traced(envelope(), envelope(id="cause", correlation_id=""))
    ).correlation_id == "cause"


@virtual
async def test_a_trace_that_was_not_sampled_stays_so_and_unknown_flags_are_zero() -> None:
    for flags, expected in {"00": "00", "01": "01", "ff": "03", "fe": "02"}.items():
        sent = await traced(envelope(), envelope(traceparent=f"00-{TRACE}-{SPAN}-{flags}"))
        assert (sent.traceparent or "").endswith(f"-{expected}")


@pytest.mark.parametrize(
    "parent", [f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-comes-later"]
)
def test_a_later_version_is_read_as_this_one(parent: str) -> None:
    @virtual
    async def run() -> None:
        assert (await traced(envelope(), envelope(traceparent=parent))).traceparent[
            :36
        ] == f"00-{TRACE}-"  # type: ignore[index]  # it is set

    run()


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "nonsense",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}",
    ],
)
def test_what_is_no_traceparent_is_ignored_with_its_tracestate(parent: str) -> None:
    @virtual
    async def run() -> None:
        sent = await traced(envelope(), envelope(traceparent=parent, tracestate="a=b"))
        assert TRACE not in (sent.traceparent or "")
        assert sent.tracestate is None

    run()


@virtual
async def test_an_invalid_tracestate_is_dropped_and_the_trace_continues() -> None:
    cause = envelope(traceparent=f"00-{TRACE}-{SPAN}-01", tracestate="a=1,a=2")
    sent = await traced(envelope(), cause)
    assert (sent.traceparent or "")[:36] == f"00-{TRACE}-"
    assert sent.tracestate is None


@virtual
async def test_a_trace_that_an_outer_layer_has_set_is_kept() -> None:
    given = envelope(correlation_id="", traceparent=f"00-{TRACE}-{SPAN}-00", tracestate="a=b")
    for sent in (await traced(given), await traced(given, envelope(id="cause"))):
        assert (sent.traceparent, sent.tracestate) == (given.traceparent, "a=b")
    assert (sent.correlation_id, sent.causation_id) == ("c-1", "cause")
