"""The cost of spans: requests with 100 in flight, with spans beside without.

usage: python -m benchmarks.traces [--rounds 20] [--calls 2000] [--sampling 1]

Two workers and two callers take turns in each round, on the same broker, so that a busy minute of
the machine affects both. One worker and one caller record spans. The result is the median of the
ratios of all rounds: of the rates, and of the processor time of caller and worker. The second one
depends less on other programs. It does not have the time of the broker, which is the same for both.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from pydantic import SecretStr
from typing_extensions import override

from benchmarks.pairs import IN_FLIGHT, load, quartiles, take_turns
from benchmarks.synchronous import worker
from bus import Bus, Message, Request, Router, Settings, contract
from bus.testing import isolated, running_broker

__all__ = ["main", "plain", "traced"]

LOWEST_RATIO = 0.9
"""The promised ratio with a sampling of 1 percent."""
SAMPLING = "BENCH_SAMPLING"
"""Variable of a worker with its sampling in percent. Without it the worker sets no provider."""


class Echoed(Message):
    """The reply."""

    number: int


@contract("plain.echo", version=1, idempotent=True)
class PlainEcho(Request[Echoed]):
    """A request of the service without spans."""

    number: int


@contract("traced.echo", version=1, idempotent=True)
class TracedEcho(Request[Echoed]):
    """A request of the service with spans."""

    number: int


plain, traced = Router("plain"), Router("traced")


@plain.request(PlainEcho, concurrency=IN_FLIGHT)
async def plain_echo(request: PlainEcho) -> Echoed:
    """Return the number of the request."""
    return Echoed(number=request.number)


@traced.request(TracedEcho, concurrency=IN_FLIGHT)
async def traced_echo(request: TracedEcho) -> Echoed:
    """Return the number of the request."""
    return Echoed(number=request.number)


class Discarding(SpanExporter):
    """An exporter for a collector that costs nothing."""

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def set_provider(percent: str) -> None:
    """Set a tracer provider that samples this part of all traces, if it is not empty."""
    if percent:
        provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(float(percent) / 100)))
        provider.add_span_processor(BatchSpanProcessor(Discarding()))
        trace.set_tracer_provider(provider)


if __name__ != "__main__":
    set_provider(os.environ.get(SAMPLING, ""))


@dataclass(frozen=True)
class Side:
    """A caller, its requests, and the process of the worker that answers them."""

    caller: Bus
    request_class: type[PlainEcho] | type[TracedEcho]
    worker: int

    async def measure(self, calls: int) -> tuple[float, float]:
        """Return the seconds of requests, and the processor seconds of caller and worker."""
        numbers = iter(range(calls))

        async def call() -> None:
            for number in numbers:
                await self.caller.request(self.request_class(number=number), timeout=20)

        used = time.process_time() + processor_seconds(self.worker)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(call())
        seconds = time.perf_counter() - began
        return seconds, time.process_time() + processor_seconds(self.worker) - used


def processor_seconds(process: int) -> float:
    """Return the processor time of another process, in steps of 10 ms. It works on Linux."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def sides_on(url: str, percent: str) -> AsyncIterator[tuple[Side, Side]]:
    """Serve both routers inside the block, and yield the side without spans and the other."""
    base = isolated(os.environ) | {"BUS_URL": url, "BUS_AUTH": "off"}
    off, on = base | {"BUS_TRACES": "off"}, base | {SAMPLING: percent}
    settings = Settings(url=SecretStr(url), auth="off")
    async with (
        worker(off, "benchmarks.traces:plain") as plain_worker,
        worker(on, "benchmarks.traces:traced") as traced_worker,
        Bus("caller", settings=settings.model_copy(update={"traces": "off"})) as plain_caller,
        Bus("caller", settings=settings) as traced_caller,
    ):
        yield (
            Side(plain_caller, PlainEcho, plain_worker),
            Side(traced_caller, TracedEcho, traced_worker),
        )


async def measure(
    url: str, percent: str, rounds: int, calls: int
) -> tuple[list[float], list[float]]:
    """Return the ratios of the rates, and those of the processor times."""
    set_provider(percent)
    async with sides_on(url, percent) as sides:
        pairs = await take_turns([partial(side.measure, calls) for side in sides], rounds)
    rates, processors = ([one[part] / other[part] for one, other in pairs] for part in (0, 1))
    return rates, processors


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the medians, and return 1 if the promised ratio is not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traces", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--sampling", default="1", help="percent; empty: no tracer provider")
    options = parser.parse_args(arguments)
    with running_broker(os.environ) as broker:
        rates, processors = asyncio.run(
            measure(broker.url, options.sampling, options.rounds, options.calls)
        )
    print(f"sampling: {options.sampling or 'no tracer provider'}")
    report("processor time without spans, divided by that with spans", processors)
    return int(report("rate with spans, divided by that without", rates) < LOWEST_RATIO)


def report(name: str, ratios: list[float]) -> float:
    """Print the median and the quartiles of the ratios, and return the median."""
    print(f"{name}: {quartiles(ratios)}, {load()}")
    return statistics.median(ratios)


if __name__ == "__main__":
    sys.exit(main())
