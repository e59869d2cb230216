"""Hypothesis for all unit tests: no deadline (the machine may be busy), nothing kept between runs."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", deadline=None, database=None, print_blob=True)
settings.load_profile("unit")
