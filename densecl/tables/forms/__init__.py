"""Forms of a table: text, Markdown, LaTeX, CSV."""
