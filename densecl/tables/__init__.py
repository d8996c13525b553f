"""Tables: records selected, grouped, measured, ranked and laid out. Knows no training."""
