"""Work on a finished run: evaluate, predict, inspect, export; and scores of other code."""
