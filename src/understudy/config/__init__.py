"""The configuration of a run: `run` is the whole tree, `model` a model's shape, `align` the stages that learn from
preferences and rewards, `types` the kinds of numbers, and `load` reads YAML and overrides."""

from understudy.config.align import DPOConfig, GRPOConfig, PPOConfig, RewardConfig, RolloutConfig
from understudy.config.model import LoraConfig, ModelConfig
from understudy.config.run import (
    CheckpointConfig,
    DataConfig,
    EvalConfig,
    LogConfig,
    OptimConfig,
    RunConfig,
    TokenizerConfig,
    TrainConfig,
)

__all__ = [
    "CheckpointConfig",
    "DPOConfig",
    "DataConfig",
    "EvalConfig",
    "GRPOConfig",
    "LogConfig",
    "LoraConfig",
    "ModelConfig",
    "OptimConfig",
    "PPOConfig",
    "RewardConfig",
    "RolloutConfig",
    "RunConfig",
    "TokenizerConfig",
    "TrainConfig",
]
