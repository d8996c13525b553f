"""Streams of experiences: `protocol` says which classes and images each step has, `scenario` makes the stream."""
