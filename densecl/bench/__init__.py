"""Measurements of speed: each module has `measure(repeats)`."""
