"""The images that a run pulls by itself."""

from __future__ import annotations

from pytest_pgo_eks.settings import Settings

# Plain Python of the 3.13 series for amd64 and arm64. The agent needs nothing but the standard
# library, so there is nothing in it that would have to match the architecture.
_PYTHON = "docker.io/library/python:3.13-slim"
_STAND_IN = "stand-in/python:3"


def probe_image(settings: Settings, *, stand_in: bool) -> str:
    """Return the image of the load agent; the stand-in has one of its own and can pull none."""
    return settings.probe_image or (_STAND_IN if stand_in else _PYTHON)
