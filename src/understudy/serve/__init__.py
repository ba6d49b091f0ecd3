"""The server: an OpenAI-compatible API, the playground, and their checks and metrics."""
