"""Carrying out a run: plan, build, train, evaluate, keep."""
