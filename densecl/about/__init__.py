"""Answers about what is here: `show`, `cite`, `doctor`."""
