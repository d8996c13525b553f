"""`show`, `cite` and `doctor`: what a name is, and what this machine has."""
