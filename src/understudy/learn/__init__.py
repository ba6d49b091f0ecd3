"""What teaches: the exercises of the notebooks, and the ladder of trainings from a bigram to PPO."""

from understudy.learn.exercises import check as check

__all__ = ["check"]
