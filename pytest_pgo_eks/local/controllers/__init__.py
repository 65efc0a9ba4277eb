"""The controllers of the stand-in cluster: control loops that work only through the API."""

from pytest_pgo_eks.local.controllers.context import ControllerConfig
from pytest_pgo_eks.local.controllers.manager import run_controllers

__all__ = ["ControllerConfig", "run_controllers"]
