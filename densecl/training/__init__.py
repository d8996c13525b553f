"""The training loop on Avalanche's template, and what it needs."""
