"""Optimisers, their parameter groups, and learning rate schedules."""

from understudy.optim.groups import build_optimizers
from understudy.optim.muon import Muon
from understudy.optim.schedule import lr_factor

__all__ = ["Muon", "build_optimizers", "lr_factor"]
