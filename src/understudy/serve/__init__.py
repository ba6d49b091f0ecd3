"""Serving runs: the OpenAI-compatible API, the playground on the same server, and the store of what people thought of
the answers. Not here: generating (inference/)."""
