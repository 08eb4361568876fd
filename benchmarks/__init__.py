"""Measurements of greenq, each run by `python -m benchmarks.NAME`. Compare figures of one run only."""
