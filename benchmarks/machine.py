"""The origin of the figures: machine, versions and date."""

import datetime as dt
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from benchmarks.actor import ROOT
from benchmarks.peers import OURS, Peer

__all__ = ["busy_cores", "commit", "described", "peer_versions", "today"]

ASK = (
    "import importlib.metadata as m, json, sys; "
    "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
)
"""Program that prints the versions of the distributions in its arguments, as JSON."""


def described() -> dict[str, object]:
    """Describe the machine, without its name."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "pydantic": version("pydantic"),
        "load_before": round(os.getloadavg()[0], 2),
    }


def processor() -> str:
    """Return the processor's name from Linux, or from `platform`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def peer_versions(peers: Mapping[str, Peer]) -> dict[str, str]:
    """Return the versions in each peer's own environment, such as `celery 5.7.0, kombu 5.7.0`."""
    return {
        peer.title: versions_of(peer)
        for peer in peers.values()
        if peer.versions or peer.key == OURS
    }


def versions_of(peer: Peer) -> str:
    """Return the versions of one peer."""
    if peer.key == OURS:
        return f"{version('trunkline')}, commit {commit()}, on aio-pika {version('aio-pika')}"
    command = [peer.interpreter() if peer.packages else sys.executable, "-c", ASK, *peer.versions]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        return "unknown"
    return ", ".join(f"{name} {number}" for name, number in json.loads(done.stdout).items())


def commit() -> str:
    """Return the commit of the checkout, with `+` if files of the bus are changed."""
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - the git on the path
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--", "bus"],  # noqa: S607 - as above
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")


def today() -> str:
    """Return the date in UTC, as ISO 8601."""
    return dt.datetime.now(dt.UTC).date().isoformat()


def busy_cores() -> float:
    """Return the processor seconds that this machine has used, or its host has withheld.

    The result is 0 without Linux's /proc.
    """
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    except OSError:
        return 0.0
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, words)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
