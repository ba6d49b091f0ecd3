"""The configuration of a run: `run` is the whole tree, `model` a model's shape, `align` the sections of the later stages,
`stages` the table of stages, `types` the kinds of numbers, and `load` reads YAML and overrides."""
