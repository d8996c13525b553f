"""Records of runs and of papers, and the places of their files. Imports no torch."""
