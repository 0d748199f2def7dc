import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.messaging.trace_context import (
    MAX_TRACESTATE_LENGTH,
    TraceParent,
    child_traceparent,
    is_unsampled,
    new_traceparent,
    parse_traceparent,
    shorten_tracestate,
    valid_tracestate,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"
INVALID = {
    "none": None,
    "empty": "",
    "text": "nonsense",
    "a trace id of zeros": f"00-{'0' * 32}-{SPAN}-01",
    "a span id of zeros": f"00-{TRACE}-{'0' * 16}-01",
    "version ff": f"ff-{TRACE}-{SPAN}-01",
    "version 00 with more fields": f"00-{TRACE}-{SPAN}-01-more",
    "a later version without a dash": f"01-{TRACE}-{SPAN}-01more",
    "a trace id in capitals": f"00-{TRACE.upper()}-{SPAN}-01",
    "a span id in capitals": f"00-{TRACE}-{SPAN.upper()}-01",
    "flags in capitals": f"00-{TRACE}-{SPAN}-0B",
    "a short trace id": f"00-{TRACE[1:]}-{SPAN}-01",
    "a long trace id": f"00-{TRACE}0-{SPAN}-01",
    "a short span id": f"00-{TRACE}-{SPAN[1:]}-01",
    "no flags": f"00-{TRACE}-{SPAN}",
    "one digit of flags": f"00-{TRACE}-{SPAN}-1",
    "a line end": f"{GOOD}\n",
    "a space": f" {GOOD}",
    "other dashes": GOOD.replace("-", "_"),
    "digits of another alphabet": GOOD.replace("0", "\N{ARABIC-INDIC DIGIT ZERO}"),
}


@pytest.mark.parametrize("parent", INVALID.values(), ids=INVALID)
def test_an_invalid_traceparent_is_ignored(parent: str | None) -> None:
    assert parse_traceparent(parent) is None
    assert child_traceparent(parent) is None
    assert not is_unsampled(parent)


@pytest.mark.parametrize(
    "parent", [GOOD, f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-fields-of-later"]
)
def test_a_later_version_is_read_as_version_00(parent: str) -> None:
    assert parse_traceparent(parent) == TraceParent(TRACE, SPAN, 1)
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-01", child_traceparent(parent) or "")


def test_the_random_flag_of_level_2_is_kept_and_unknown_flags_are_zeroed() -> None:
    expected = {"00": 0, "01": 1, "02": 2, "03": 3, "fc": 0, "fe": 2, "ff": 3, "05": 1}
    for flags, known in expected.items():
        parent = f"00-{TRACE}-{SPAN}-{flags}"
        assert parse_traceparent(parent) == TraceParent(TRACE, SPAN, known)
        assert (child_traceparent(parent) or "").endswith(f"-{known:02x}")
        assert is_unsampled(parent) == (not known & 1)


def test_a_new_trace_is_sampled_and_says_that_its_id_is_random() -> None:
    traces = {new_traceparent() for _ in range(1000)}
    parsed = [parse_traceparent(each) for each in traces]
    assert len({each.trace_id for each in parsed if each}) == 1000
    assert {each.flags for each in parsed if each} == {3}


keys = st.from_regex(r"[a-z0-9][a-z0-9_\-*/@]{0,255}", fullmatch=True)
values = st.from_regex(
    r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]", fullmatch=True
)
members = st.lists(st.tuples(keys, values), min_size=1, max_size=32, unique_by=lambda each: each[0])


@settings(max_examples=40)
@given(
    st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 255), st.integers(0, 254)
)
def test_every_traceparent_of_the_standard_is_read(
    trace: int, span: int, flags: int, version: int
) -> None:
    parent = f"{version:02x}-{trace:032x}-{span:016x}-{flags:02x}"
    assert parse_traceparent(parent) == TraceParent(f"{trace:032x}", f"{span:016x}", flags & 3)
    child = parse_traceparent(child_traceparent(parent))
    assert child is not None
    assert (child.trace_id, child.flags) == (f"{trace:032x}", flags & 3)


@settings(max_examples=40)
@given(st.text(max_size=80) | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+.*"))
def test_no_text_raises_an_error(text: str) -> None:
    parent = parse_traceparent(text)
    assert (child_traceparent(text) is None) == (parent is None)
    if parent is not None:
        assert (len(parent.trace_id), len(parent.span_id), parent.flags & ~3) == (32, 16, 0)
    valid_tracestate(text)
    shorten_tracestate(text)


@settings(max_examples=40)
@given(members)
def test_every_tracestate_of_the_standard_is_kept(pairs: list[tuple[str, str]]) -> None:
    text = ",".join(f"{key}={value}" for key, value in pairs)
    assert valid_tracestate(text) == text


@settings(max_examples=40)
@given(members)
def test_a_shortened_tracestate_is_valid_and_keeps_the_order(pairs: list[tuple[str, str]]) -> None:
    all_members = [f"{key}={value}".strip(" \t") for key, value in pairs]
    short = shorten_tracestate(",".join(all_members))
    kept = [] if short is None else short.split(",")
    assert len(short or "") <= MAX_TRACESTATE_LENGTH
    assert kept == [member for member in all_members if member in kept]
    assert (short is None) or valid_tracestate(short) == short


@pytest.mark.parametrize(
    "text",
    [
        "no-equals-sign",
        "=value",
        "key=",
        "Capital=1",
        "key=a=b",
        "kéy=1",
        "key=ü",
        "key=tab\tinside",
        "a=1,a=2",
        f"{'k' * 257}=1",
        f"k={'v' * 257}",
        ",".join(f"k{number}=1" for number in range(33)),
        "good=1,bad",
        "a=1\n",
    ],
)
def test_an_invalid_tracestate_is_dropped_as_a_whole(text: str) -> None:
    assert valid_tracestate(text) is None
    assert shorten_tracestate(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
        "fw529a3039@dt=1",
        "0key=1",
        "a=1 , b=2",
        "a=1,,b=2,",
        f"{'k' * 256}={'v' * 256}",
        ",".join(f"k{number}=1" for number in range(32)),
    ],
)
def test_a_tracestate_of_level_1_or_level_2_is_kept(text: str) -> None:
    assert valid_tracestate(text) == text


def test_the_longest_members_of_a_tracestate_are_left_out_first() -> None:
    long = f"long={'v' * 200}"
    many = [f"k{number:02}={'v' * 20}" for number in range(18)]
    assert shorten_tracestate(",".join([long, *many])) == ",".join(many)
    assert shorten_tracestate(",".join([*many, *(f"x{n}={'v' * 20}" for n in range(9))])) == (
        ",".join([*many, "x0=" + "v" * 20, "x1=" + "v" * 20])
    )
    assert shorten_tracestate(None) is None
