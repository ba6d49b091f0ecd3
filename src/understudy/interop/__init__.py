"""Formats of other projects: one file for each."""
