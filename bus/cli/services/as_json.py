"""The JSON of `bus services`. Its keys are part of the command line's interface."""

from collections.abc import Iterable, Mapping
from typing import Any

from bus.messaging.service_info import InstanceInfo, InstanceStats
from bus.runtime.discovery.job_summary import summarize_jobs
from bus.runtime.discovery.live_view import LiveInstance
from bus.runtime.discovery.measurements import Measurement
from bus.runtime.discovery.operation_summary import Durations, OperationSummary, summarize
from bus.runtime.discovery.service_summary import ServiceSummary

__all__ = ["service_to_json", "services_to_json"]

MAX_INSTANCES = 200
"""Maximum number of instances of one service in the JSON. `states` counts all of them."""
DIGITS = 6
"""Digits after the decimal point of durations and rates: microseconds."""


def services_to_json(
    services: Iterable[ServiceSummary],
    infos: Iterable[InstanceInfo] = (),
    *,
    at: float,
    error: str | None = None,
) -> dict[str, Any]:
    """Return one state of the services.

    Args:
        services: The services.
        infos: Answers to INFO. An instance without such an answer has null as its contracts.
        at: Time of the state, in seconds since the epoch.
        error: Reason why the state is older than `at`, or None.
    """
    by_instance = {(info.service, info.instance): info for info in infos}
    return {
        "at": round(at, 3),
        "error": error,
        "services": [service_to_json(service, by_instance) for service in services],
    }


def service_to_json(
    service: ServiceSummary, infos: Mapping[tuple[str, str], InstanceInfo]
) -> dict[str, Any]:
    """Return one service. Unknown values are null. Durations are in seconds."""
    return {
        "name": service.name,
        "state": service.state,
        "states": dict(service.states),
        "versions": sorted({each.record.version for each in service.live if each.record.version}),
        "started": service.started,
        "problems": [{"code": each.code, "text": each.text} for each in service.problems],
        "handled": service.count,
        "failed": service.failed,
        "recently_handled": service.recent,
        "recently_failed": service.recently_failed,
        "rate": _rounded(service.rate),
        "error_rate": _rounded(service.error_rate),
        **_durations("", service.durations),
        "slots": service.slots,
        "used": service.used,
        "instances": [
            _instance(each, infos.get(each.key)) for each in service.instances[:MAX_INSTANCES]
        ],
        "operations": _operations(service.totals.handled, service.interval.handled),
        "sent": _operations(service.totals.sent, service.interval.sent),
        "jobs": [
            {
                "type": row.type,
                "states": dict(row.states),
                "oldest_waiting": _rounded(row.oldest_waiting),
            }
            for row in summarize_jobs(each.record for each in service.live)
        ],
    }


def _instance(instance: LiveInstance, info: InstanceInfo | None) -> dict[str, Any]:
    record = instance.record
    stats = record if isinstance(record, InstanceStats) else None
    summary = summarize([Measurement(stats=stats)] if stats else [])
    return {
        "instance": record.instance,
        "state": instance.state,
        "missed": instance.missed,
        "version": record.version,
        "started": record.started,
        "since": stats.since if stats else None,
        "left_out": record.left_out + (info.left_out if info else 0),
        "bus_version": info.bus_version if info else None,
        "python_version": info.python_version if info else None,
        "operations": _operations(summary.handled),
        "sent": _operations(summary.sent),
        "contracts": [each.model_dump() for each in info.contracts] if info else None,
    }


def _operations(
    rows: Iterable[OperationSummary], intervals: Iterable[OperationSummary] = ()
) -> list[dict[str, Any]]:
    by_operation = {row.operation: row for row in intervals}
    return [_operation(row, by_operation.get(row.operation)) for row in rows]


def _operation(row: OperationSummary, interval: OperationSummary | None) -> dict[str, Any]:
    last_error = None
    if row.last_error is not None:
        instance, error = row.last_error
        last_error = {**error.model_dump(), "instance": instance}
    return {
        "type": row.operation.type,
        "kind": row.operation.kind,
        "subscription": row.operation.subscription or None,
        "count": row.count,
        "errors": dict(row.errors),
        "recent_count": row.recent,
        "recent_errors": dict(row.recent_errors),
        "retried": row.retried,
        "hedged": row.hedged,
        "rejected": dict(row.rejected),
        "fallbacks": row.fallbacks,
        "dead_lettered": row.dead_lettered,
        "rate": _rounded(interval.rate if interval else None),
        "error_rate": _rounded(interval.error_rate if interval else None),
        **_durations("", row.durations),
        **_durations("delay_", row.delays),
        "slots": row.slots,
        "free": row.free,
        "in_flight": row.in_flight,
        "oldest": _rounded(row.oldest[1] if row.oldest else None),
        "pauses": dict(row.pauses),
        "operator_pause": None if row.operator_pause is None else row.operator_pause.model_dump(),
        "candidates": [
            {**candidate.model_dump(), "instance": instance}
            for instance, candidate in row.candidates
        ],
        "last_error": last_error,
        "last_handled": max(
            (handler.last_handled for _, handler in row.handlers if handler.last_handled),
            default=None,
        ),
    }


def _durations(prefix: str, durations: Durations) -> dict[str, float | None]:
    quantiles = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    return {
        **{f"{prefix}{name}": _rounded(durations.quantile(q)) for name, q in quantiles.items()},
        f"{prefix}max": _rounded(durations.max if durations.count else None),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
