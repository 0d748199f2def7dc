"""Lines that `bus store` prints about a store."""

from collections.abc import Iterator

from bus.cli.quantities import format_duration, format_number
from bus.messaging.jobs.pruning import PruneReport
from bus.messaging.jobs.store_report import ReencryptReport, StoreReport, UpgradeReport
from bus.messaging.plurals import count_noun

__all__ = ["check_lines", "prune_text", "reencrypt_lines", "upgrade_text"]

WIDTH = 11
NO_OWNER = "none yet; the first service that opens the store owns it"


def upgrade_text(report: UpgradeReport, *, is_dry: bool) -> str:
    """Return the text about an upgrade, or about its dry run."""
    before, after = report.before, report.after
    owner = f", service {after.service}" if after.service else ""
    if before.revision == after.revision:
        return f"{after.place}: nothing to do (revision {after.revision}{owner})"
    would = "would be " if is_dry else ""
    what = (
        f"{would}created with revision {after.revision}"
        if before.revision is None
        else f"{would}upgraded from revision {before.revision} to {after.revision}"
    )
    number = f", id {after.id}" if after.id else ""
    return f"{after.place}: {what}{owner}{number}"


def check_lines(report: StoreReport) -> Iterator[str]:
    """Yield the lines about the condition of a store."""
    identity = report.identity
    yield _line("store", identity.place)
    if identity.id is not None:
        yield _line("id", identity.id)
        yield _line("service", identity.service or NO_OWNER)
        needed = (
            ""
            if identity.revision == report.needed_revision
            else (f" (this version of the bus uses {report.needed_revision})")
        )
        yield _line("revision", f"{identity.revision}{needed}")
    if report.bytes is not None:
        states = ", ".join(f"{count} {state}" for state, count in report.jobs.items())
        yield _line("jobs", states or "none")
        oldest = report.oldest_waiting
        yield _line("waiting", "none" if oldest is None else f"for {format_duration(oldest)}")
        yield _line("instances", f"{report.instances} live")
        yield _line("size", f"{format_number(report.bytes)} bytes")
    for problem in report.problems:
        yield _line("problem", problem)
    if not report.problems:
        yield _line("problems", "none")


def prune_text(report: PruneReport, *, is_dry: bool) -> str:
    """Return the text about a pruning, or about its dry run."""
    would = "would be " if is_dry else ""
    return (
        f"{count_noun(report.payloads, 'payload')}, {count_noun(report.jobs, 'job')} and "
        f"{count_noun(report.inbox, 'handled message')} {would}removed"
    )


def reencrypt_lines(report: ReencryptReport, *, is_dry: bool) -> Iterator[str]:
    """Yield the lines about a new encryption, or about its dry run."""
    for key, count in sorted(report.messages.items()):
        is_new = " (the newest key)" if key == report.key else ""
        yield _line("key", f"{key}: {count_noun(count, 'message')}{is_new}")
    if not report.messages:
        yield _line("key", "no stored message is encrypted")
    if not is_dry:
        yield _line("changed", f"{count_noun(report.changed, 'message')}, now {report.key}")
    if report.unreadable:
        yield _line(
            "problem",
            f"{count_noun(report.unreadable, 'message')} cannot be decrypted. Add the missing key "
            "to BUS_ENCRYPTION_KEYS, and run the command again.",
        )


def _line(name: str, text: str) -> str:
    return f"{name:<{WIDTH}}{text}"
