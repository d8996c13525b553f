"""Records, and what is made of them. Knows no training."""
