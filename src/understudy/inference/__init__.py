"""Inference: sampling from a trained model, as tokens or as text, whole or in a stream, alone or many requests at once."""
