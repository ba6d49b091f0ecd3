"""Text in, token files out, and token files back as batches. This package knows nothing of training, and
of models one file alone: `sampled_preferences` has a run answer.

`documents` reads files, `hub` and `download` fetch, `sources` names, `splits` divides into training and
validation, `prepare` writes a data folder, `shards` opens one, `loader` makes batches of it.
"""
