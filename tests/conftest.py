from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ring",
    deadline=None,
    max_examples=101,
    # A test's temporary folder may be shared by its examples: each makes its own inside.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("ring")
