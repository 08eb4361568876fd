"""Tests of the benchmarks: what they compute and judge, and that they run. No figure is asserted: machines differ."""
