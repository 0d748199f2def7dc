"""Settings of Hypothesis, loaded by the conftest of each folder with property tests.

The other folders do not load Hypothesis, which takes 0.15 s a process.
"""

import hypothesis


def as_here() -> None:
    """Register and load a profile without a limit of time for an example.

    The time depends on the machine: a busy one soon exceeds the 200 ms of Hypothesis.
    """
    hypothesis.settings.register_profile(
        "trunkline", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("trunkline")
