"""Learning from preferences and rewards: what is trained on, each stage's objective, and how answers are sampled.

Each stage is a preparation of the one loop (train/runner.py), as finetuning is. Not here: the losses (losses.py), and
reading preferences (data/chat/preferences.py).
"""
