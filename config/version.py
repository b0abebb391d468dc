"""The version of Salamander: said here, and nowhere else. CHANGELOG.md tells what each brought."""

from __future__ import annotations

#: Semantic versioning: the second number grows with what is new, the first one when something must be changed by hand.
VERSION = "0.2.0"
