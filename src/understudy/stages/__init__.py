"""Learning from preferences and rewards: data, objective and sampling of each stage.

Each stage is a preparation of the one loop (train/runner.py), as finetuning is. Not here: the losses (losses.py), and
reading preferences (data/chat/preferences.py).
"""
