"""Locations of failures: texts of frames, without values."""

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import bus
from bus.errors import Internal
from bus.messaging.failure_location import failure_facts, failure_frames, failure_location
from bus.messaging.labels import failure_label
from bus.messaging.supervision import run_forever
from bus.runtime.router import Router

SECRET = "Eleonora Quist"
HERE = "tests/unit/messaging/test_failure_location.py"
LINE = re.compile(r"(\S+:\d+ \S+( \(\w+\))?|… \d+ more)")


def caught(function: Callable[..., object], *args: object) -> BaseException:
    try:
        function(*args)
    except BaseException as error:  # noqa: BLE001 - the caller reads its traceback
        return error
    pytest.fail("no error was raised")


def price(customer: str) -> int:
    raise KeyError(customer)


def quote(customer: str) -> int:
    return price(customer)


def module_at(path: Path, text: str, name: str = "billing.service") -> ModuleType:
    """Return a module whose code has this path, without writing a file."""
    module = ModuleType(name)
    exec(compile(text, str(path), "exec"), vars(module))
    return module


FAIL = "def quote(*_):\n    raise KeyError('Eleonora Quist')\n"
CALL = "def call(inner, *args):\n    return inner(*args)\n"
REWRAP = (
    "def call(inner):\n    try:\n        inner()\n"
    "    except Exception as error:\n        raise RuntimeError from error\n"
)
SITE = Path("/opt/venv/lib/python3.11/site-packages")
BUS = Path(bus.__file__).parent


def test_a_location_is_file_line_and_function() -> None:
    error = caught(quote, SECRET)
    line = price.__code__.co_firstlineno + 1
    assert failure_location(error) == f"{HERE}:{line} price"


def test_all_frames_stand_outermost_first_and_have_no_values() -> None:
    frames = failure_frames(caught(quote, SECRET))
    assert [frame.rpartition(" ")[2] for frame in frames] == ["caught", "quote", "price"]
    assert all(LINE.fullmatch(frame) for frame in frames)
    assert SECRET not in str(frames)


def test_the_facts_of_a_log_line_are_class_location_and_frames() -> None:
    error = caught(quote, SECRET)
    facts = failure_facts(error)
    assert facts == {
        "error": "KeyError",
        "where": failure_location(error),
        "frames": [*failure_frames(error)],
    }
    assert json.loads(json.dumps(facts)) == facts


def test_an_error_that_was_never_raised_has_no_location() -> None:
    assert failure_location(ValueError(SECRET)) is None
    assert failure_frames(ValueError(SECRET)) == ()


def test_a_method_is_named_with_its_class() -> None:
    class Billing:
        def quote(self) -> None:
            raise KeyError(SECRET)

    location = failure_location(caught(Billing().quote))
    assert location is not None
    assert location.endswith(" Billing.quote")


# --- Own code, libraries and the bus ---


def test_the_frames_of_an_installed_package_are_not_the_location() -> None:
    library = module_at(SITE / "asyncpg/connection.py", FAIL, "asyncpg.connection")
    error = caught(quote_by, library)
    assert failure_location(error) == f"{HERE}:{line_of(error, -2)} quote_by"
    assert failure_frames(error)[-1] == "asyncpg/connection.py:2 quote"


def quote_by(library: ModuleType) -> object:
    return library.quote(SECRET)


def line_of(error: BaseException, index: int) -> str:
    return failure_frames(error)[index].partition(":")[2].partition(" ")[0]


def test_the_frames_of_the_standard_library_are_not_the_location() -> None:
    error = caught(lambda: json.loads("{"))
    assert failure_location(error) == f"{HERE}:{line_of(error, 1)} <lambda>"
    assert failure_frames(error)[-1].startswith("json/decoder.py:")


def test_the_frames_of_the_bus_are_not_the_location_even_in_a_checkout() -> None:
    error = caught(lambda: Router("no name"))
    assert failure_location(error) == f"{HERE}:{line_of(error, 1)} <lambda>"
    assert failure_frames(error)[-1].startswith("bus/")


def test_a_service_that_is_an_installed_package_is_found_below_the_bus() -> None:
    inner = module_at(SITE / "asyncpg/connection.py", FAIL)
    service = module_at(SITE / "billing/service.py", CALL)
    routing = module_at(BUS / "runtime/router.py", CALL)
    error = caught_without_frame(routing.call, service.call, inner.quote)
    assert failure_location(error) == "billing/service.py:2 call"


def test_a_validator_of_an_installed_service_is_found_below_pydantic() -> None:
    contract = module_at(SITE / "billing_contracts/quote.py", FAIL)
    pydantic = module_at(SITE / "pydantic/main.py", CALL)
    error = caught_without_frame(
        module_at(BUS / "router.py", CALL).call, pydantic.call, contract.quote
    )
    assert failure_location(error) == "billing_contracts/quote.py:2 quote"


def caught_without_frame(function: Callable[..., object], *args: object) -> BaseException:
    """Return the error without the frame of this file, as the bus sees errors of handlers."""
    error = caught(function, *args)
    trace = error.__traceback__
    return error.with_traceback(trace.tb_next if trace else None)


def test_an_error_without_a_frame_of_a_service_has_its_innermost_frame() -> None:
    routing = module_at(BUS / "runtime/router.py", FAIL)
    assert failure_location(caught_without_frame(routing.quote)) == "bus/runtime/router.py:2 quote"


def test_code_without_a_file_is_the_location_only_if_nothing_better_is_there() -> None:
    @dataclass
    class Order:
        total: int = field(default_factory=lambda: int(SECRET))

    error = caught(Order)
    assert (failure_location(error) or "").startswith(HERE)
    library = module_at(SITE / "attr/generated.py", CALL)
    generated = module_at(Path("<string>"), FAIL)
    error = caught_without_frame(library.call, generated.quote)
    assert failure_location(error) == "<string>:2 quote"


# --- Paths ---


def test_a_path_in_the_working_directory_is_relative_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = caught(module_at(tmp_path / "src/billing/service.py", FAIL).quote)
    assert failure_location(error) == "src/billing/service.py:2 quote"


def test_a_path_elsewhere_is_relative_to_the_folder_of_its_package() -> None:
    error = caught(module_at(Path("/srv/app/billing/service.py"), FAIL).quote)
    assert failure_location(error) == "billing/service.py:2 quote"
    package = module_at(Path("/srv/app/billing/__init__.py"), FAIL, "billing")
    assert failure_location(caught(package.quote)) == "billing/__init__.py:2 quote"


def test_a_service_in_the_root_folder_of_a_container_has_a_short_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir("/")
    error = caught(module_at(Path("/app/billing/service.py"), FAIL).quote)
    assert failure_location(error) == "billing/service.py:2 quote"


def test_a_deleted_working_directory_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    error = caught(module_at(Path("/srv/app/billing/service.py"), FAIL).quote)
    assert failure_location(error) == "billing/service.py:2 quote"


def test_control_characters_and_long_names_cannot_reach_a_log() -> None:
    name = "n" * 500
    text = f"def {name}():\n    raise KeyError\n"
    error = caught(vars(module_at(Path("/srv/\x1b[31m\ud800\n" + "p" * 500 + ".py"), text))[name])
    location = failure_location(error) or ""
    assert location.isprintable()
    assert len(location) < 300
    assert location.encode()


# --- Groups, causes and long tracebacks ---


def tax() -> int:
    raise ValueError(SECRET)


async def later(function: Callable[[], object]) -> None:
    function()


async def quote_in_parallel() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(later(lambda: price(SECRET)))
        group.create_task(later(tax))


def test_a_failed_task_group_names_the_frames_of_its_members() -> None:
    error = caught(asyncio.run, quote_in_parallel())
    frames = failure_frames(error)
    assert isinstance(error, ExceptionGroup)
    assert any(frame.endswith(" quote_in_parallel") for frame in frames)
    assert any(frame.endswith(" price (KeyError)") for frame in frames)
    assert frames[-1].endswith(" tax (ValueError)")
    assert (failure_location(error) or "").endswith(" price")
    assert SECRET not in str(frames)


def test_nested_groups_name_the_frames_of_their_members() -> None:
    inner = BaseExceptionGroup("inner", [caught(tax), caught(quote, SECRET)])
    frames = failure_frames(BaseExceptionGroup("outer", [inner]))
    assert [frame.rpartition(":")[2].partition(" ")[2] for frame in frames] == [
        "caught",
        "tax (ValueError)",
        "caught",
        "quote",
        "price (KeyError)",
    ]


def test_the_frames_of_a_group_are_bounded_in_number() -> None:
    members = [caught(quote, SECRET) for _ in range(10_000)]
    assert len(failure_frames(BaseExceptionGroup("many", members))) <= 8 * 3


def test_an_error_that_the_bus_raised_from_another_has_the_location_of_the_other() -> None:
    service = module_at(Path("/srv/app/billing/service.py"), FAIL)
    error = caught_without_frame(module_at(BUS / "runtime/router.py", REWRAP).call, service.quote)
    assert failure_location(error) == "billing/service.py:2 quote"
    assert failure_frames(error) == (
        "bus/runtime/router.py:5 call",
        "bus/runtime/router.py:3 call",
        "billing/service.py:2 quote (KeyError)",
    )


def test_a_library_error_below_the_service_keeps_the_service_as_its_location() -> None:
    refused = module_at(SITE / "httpcore/pool.py", FAIL)
    client = module_at(SITE / "httpx/client.py", REWRAP)
    service = module_at(Path("/srv/app/billing/service.py"), CALL)
    error = caught_without_frame(service.call, client.call, refused.quote)
    assert failure_location(error) == "billing/service.py:2 call"
    assert failure_frames(error)[-1] == "httpcore/pool.py:2 quote (KeyError)"


def test_an_error_that_the_service_raised_from_another_keeps_its_own_location() -> None:
    prices = module_at(Path("/srv/app/billing/prices.py"), FAIL, "billing.prices")
    service = module_at(Path("/srv/app/billing/service.py"), REWRAP)
    error = caught_without_frame(service.call, prices.quote)
    assert failure_location(error) == "billing/service.py:5 call"
    assert failure_frames(error)[-1] == "billing/prices.py:2 quote (KeyError)"


def test_an_error_that_was_not_raised_has_the_location_of_its_cause() -> None:
    error = Internal()
    error.__cause__ = caught(tax)
    assert (failure_location(error) or "").endswith(" tax")


def test_a_cycle_of_causes_ends() -> None:
    first, second = caught(tax), caught(quote, SECRET)
    first.__cause__, second.__cause__ = second, first
    first.__context__, second.__context__ = second, first
    assert len(failure_frames(first)) == 5
    group = BaseExceptionGroup("cycle", [first])
    first.__cause__ = group
    assert len(failure_frames(group)) == 2
    assert failure_location(group) is not None


def test_a_cycle_of_causes_outside_of_the_service_ends() -> None:
    first, second = (
        caught_without_frame(module_at(BUS / f"{name}.py", FAIL).quote) for name in ("a", "b")
    )
    first.__cause__, second.__cause__ = second, first
    assert failure_location(first) == "bus/a.py:2 quote"


def test_a_deep_recursion_is_bounded() -> None:
    def recurse(depth: int) -> int:
        return recurse(depth + 1)

    error = caught(recurse, 0)
    frames = failure_frames(error)
    assert isinstance(error, RecursionError)
    assert len(frames) <= 41
    assert any(re.fullmatch(r"… \d+ more", frame) for frame in frames)
    assert (failure_location(error) or "").endswith(" recurse")


def test_a_syntax_error_in_a_module_is_located_in_that_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prices_of_1998.py").write_text("x = 1\nx = = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    error = caught(import_module, "prices_of_1998")
    assert failure_location(error) == "prices_of_1998.py:2 <module>"


def test_the_text_of_a_syntax_error_is_not_a_location() -> None:
    error = caught(compile, "= 2", SECRET, "exec")
    assert SECRET not in str(failure_facts(error))


# --- Log lines of the bus ---


def test_a_bug_in_a_supervised_step_is_logged_with_its_location(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        async def step() -> None:
            tax()

        failed = asyncio.Event()
        loop = asyncio.ensure_future(
            run_forever(step, expected=(), on_error=lambda _: failed.set())
        )
        await failed.wait()
        loop.cancel()
        with suppress(asyncio.CancelledError):
            await loop

    asyncio.run(run())
    record: dict[str, Any] = vars(caplog.records[0])
    assert record["where"].endswith(" tax")
    assert record["frames"][-1] == record["where"]
    assert SECRET not in str(record)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", ""])
def test_a_syntax_error_in_a_file_that_cannot_exist_is_located(name: str) -> None:
    def parse() -> None:
        raise SyntaxError("invalid syntax", (name, 1, 1, SECRET))

    assert re.fullmatch(rf"{HERE}:\d+ parse", failure_location(caught(parse)) or "")


def test_the_frames_of_a_context_follow_and_do_not_move_the_location() -> None:
    def quote_or_fail() -> None:
        try:
            price(SECRET)
        except KeyError:
            raise RuntimeError  # noqa: B904 - without `from`, as services write it

    error = caught(quote_or_fail)
    assert failure_frames(error)[-1].endswith(" price (KeyError)")
    assert (failure_location(error) or "").endswith(" quote_or_fail")


def test_a_context_that_the_service_suppressed_is_not_read() -> None:
    def quote_or_fail() -> None:
        try:
            price(SECRET)
        except KeyError:
            raise RuntimeError from None

    assert " price" not in str(failure_frames(caught(quote_or_fail)))


def test_an_error_of_a_library_in_an_except_block_is_located_at_its_call() -> None:
    library = module_at(SITE / "httpx/client.py", FAIL)

    def quote_by_library() -> None:
        try:
            price(SECRET)
        except KeyError:
            library.quote()

    error = caught(quote_by_library)
    assert (failure_location(error) or "").endswith(" quote_by_library")


def test_a_cycle_of_contexts_ends() -> None:
    first, second = caught(tax), caught(quote, SECRET)
    first.__context__, second.__context__ = second, first
    assert len(failure_frames(first)) == 5


def test_a_stop_iteration_in_a_coroutine_is_located_where_it_was_raised() -> None:
    async def first(names: list[str]) -> str:
        return next(iter(names))

    async def outer() -> str:
        return await first([])

    assert (failure_location(caught(asyncio.run, outer())) or "").endswith(" first")


def test_the_frames_say_how_many_members_of_a_group_are_missing() -> None:
    members = [caught(tax) for _ in range(20)]
    assert failure_frames(BaseExceptionGroup("many", members))[-1] == "… 13 more errors"
    assert failure_frames(BaseExceptionGroup("many", members[:8]))[-1] == "… 1 more error"
    assert "more" not in str(failure_frames(BaseExceptionGroup("few", members[:7])))


def test_the_label_of_a_group_names_the_classes_of_its_members() -> None:
    inner = BaseExceptionGroup("inner", [caught(tax), caught(quote, SECRET), caught(tax)])
    facts = failure_facts(BaseExceptionGroup("outer", [inner]))
    assert facts["members"] == ["ValueError", "KeyError"]
    assert failure_label(facts).startswith("ExceptionGroup (ValueError, KeyError) at ")
    kinds = [type(f"Error{index}", (Exception,), {})() for index in range(6)]
    assert failure_label(failure_facts(ExceptionGroup("many", kinds))) == (
        "ExceptionGroup (Error0, Error1, Error2, Error3, … 2 more)"
    )
