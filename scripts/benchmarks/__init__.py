"""Measurements beside peers, in one run on one machine: started by ./scripts/bench.

A benchmark is an entry of :mod:`scripts.benchmarks.registry`. It measures, and judges nothing but the
published targets; what it builds with is production code, called as a user calls it.
"""
