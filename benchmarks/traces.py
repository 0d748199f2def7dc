"""The cost of spans: requests per second with 100 in flight, with spans beside without.

usage: python -m benchmarks.traces [--rounds 20] [--calls 2000]

The two services take turns in each round, on the same broker and in the same process, so that a
busy minute of the machine affects both. The result is the median of the ratios of all rounds, once
by the time of a clock, and once by the processor time of this process.

Caller and service are in one process, which does the work of both spans of a request. The ratio by
processor time does not depend on other programs of the machine. It is the lower of the two on an
idle machine, because the time of the broker is not in it.
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

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from pydantic import SecretStr
from typing_extensions import override

from bus import Bus, Message, Request, Router, Settings, contract
from bus.testing import running_broker

__all__ = ["main"]

IN_FLIGHT = 100
LOWEST_RATIO = 0.9
"""The promised ratio with a sampling of 1 percent."""


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


def router_of(service: str, request_class: type[Request[Echoed]]) -> Router:
    """Return a router that answers at once."""
    router = Router(service)

    @router.request(request_class, concurrency=IN_FLIGHT)
    async def echo(request: Request[Echoed]) -> Echoed:
        return Echoed(number=getattr(request, "number", 0))

    return router


class Discarding(SpanExporter):
    """An exporter for a collector that costs nothing."""

    count = 0

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.count += len(spans)
        return SpanExportResult.SUCCESS


class Changing(Sampler):
    """A sampler with a rate that the measurement changes. A tracer keeps its first sampler."""

    chosen: Sampler = ParentBased(TraceIdRatioBased(0))

    @override
    def should_sample(self, *args: object, **kwargs: object) -> SamplingResult:
        return self.chosen.should_sample(*args, **kwargs)  # type: ignore[arg-type]

    @override
    def get_description(self) -> str:
        return "changing"


Ratio = tuple[float, float]
"""Ratio of two rates, by the time of a clock and by processor time."""


@dataclass(frozen=True)
class Pair:
    """A caller without spans and a caller with spans."""

    plain: Bus
    traced: Bus

    async def ratio(self, calls: int) -> Ratio:
        """Return the requests per second with spans, divided by those without."""
        plain = await seconds_of(self.plain, PlainEcho, calls)
        traced = await seconds_of(self.traced, TracedEcho, calls)
        return plain[0] / traced[0], plain[1] / traced[1]


async def seconds_of(
    bus: Bus, request_class: type[PlainEcho] | type[TracedEcho], calls: int
) -> tuple[float, float]:
    """Return the seconds and the processor seconds of requests, with `IN_FLIGHT` at a time."""
    numbers = iter(range(calls))

    async def caller() -> None:
        for number in numbers:
            await bus.request(request_class(number=number), timeout=20)

    began, used = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(caller())
    return time.perf_counter() - began, time.process_time() - used


@asynccontextmanager
async def pair_on(url: str) -> AsyncIterator[Pair]:
    """Serve both routers inside the block, and yield the callers."""
    off = Settings(url=SecretStr(url), auth="off", traces="off")
    on = Settings(url=SecretStr(url), auth="off", traces="on")
    async with (
        Bus("plain", settings=off) as plain,
        Bus("traced", settings=on) as traced,
        plain.serving(router_of("plain", PlainEcho)),
        traced.serving(router_of("traced", TracedEcho)),
        Bus("caller", settings=off) as plain_caller,
        Bus("caller", settings=on) as traced_caller,
    ):
        yield Pair(plain_caller, traced_caller)


async def measure(url: str, rounds: int, calls: int) -> dict[str, list[Ratio]]:
    """Return the ratios of each variant."""
    async with pair_on(url) as pair:

        async def ratios() -> list[Ratio]:
            await pair.ratio(calls)  # warm-up
            return [await pair.ratio(calls) for _ in range(rounds)]

        found = {"no tracer provider": await ratios()}
        sampler = Changing()
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(BatchSpanProcessor(Discarding()))
        trace.set_tracer_provider(provider)
        for percent in (1, 100):
            sampler.chosen = ParentBased(TraceIdRatioBased(percent / 100))
            found[f"sampling of {percent} percent"] = await ratios()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the medians, and return 1 if the promised ratio is not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traces", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=2000)
    options = parser.parse_args(arguments)
    with running_broker(os.environ) as broker:
        found = asyncio.run(measure(broker.url, options.rounds, options.calls))
    medians = {name: report(name, ratios) for name, ratios in found.items()}
    return int(medians["sampling of 1 percent"] < LOWEST_RATIO)


def report(name: str, ratios: list[Ratio]) -> float:
    """Print the medians and quartiles of the ratios. Return the median by processor time."""
    median = 0.0
    for clock, values in zip(("clock", "processor"), zip(*ratios, strict=True), strict=True):
        low, median, high = statistics.quantiles(values, n=4)
        print(
            f"{name}, by {clock} time: {median:.3f} of the rate without spans "
            f"(quartiles {low:.3f} and {high:.3f}; load {os.getloadavg()[0]:.1f})"
        )
    return median


if __name__ == "__main__":
    sys.exit(main())
