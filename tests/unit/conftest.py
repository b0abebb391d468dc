"""How property tests run: without a time limit for each example, since the machine may be busy with others."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("salamander", deadline=None)
settings.load_profile("salamander")
