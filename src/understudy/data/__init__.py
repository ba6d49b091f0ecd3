"""Text in, token files out, and token files back as batches. This package knows nothing of models or
training.

`documents` reads files, `hub` and `download` fetch, `sources` names, `splits` divides into training and
validation, `prepare` writes a data folder, `shards` opens one, `loader` makes batches of it.
"""
