"""Work on a finished run: evaluate, predict, inspect."""
