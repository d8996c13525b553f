"""What pages are made with: text from recipes, classes and records, and the directives that place it."""
