"""The report of a folder of runs: one HTML page that opens offline. Reads records and pictures, knows no training."""
