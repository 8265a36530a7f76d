"""Measurements: `python -m benches` runs them all, writes `benches/results.json` and prints a table."""
