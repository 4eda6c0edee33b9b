"""Sweeps without a server: W&B's YAML, run as ``fit`` processes on this machine."""

from satlight.sweeps.definition import Parameter, Sweep, read_sweep
from satlight.sweeps.runner import run_sweep
from satlight.sweeps.trials import Trial

__all__ = ["Parameter", "Sweep", "Trial", "read_sweep", "run_sweep"]
