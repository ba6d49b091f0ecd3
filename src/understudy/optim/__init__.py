"""Optimisers and schedules: which parameter is updated by what rule, how fast, at which step."""

from understudy.optim.groups import build_optimizers
from understudy.optim.muon import Muon
from understudy.optim.schedule import lr_factor

__all__ = ["Muon", "build_optimizers", "lr_factor"]
