"""Settings of the whole suite."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile(
    "pbeauty",
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
settings.load_profile("pbeauty")
