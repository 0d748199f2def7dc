"""How Hypothesis runs here. Loaded by the conftest of each folder that has properties; the others do without it, 0.15 s a process."""

import hypothesis


def as_here() -> None:
    """How long an example takes is the machine's affair, not the code's: on a crowded one Hypothesis' own 200 ms are soon over."""
    hypothesis.settings.register_profile(
        "trunkline", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("trunkline")
