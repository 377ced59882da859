"""The package manager: the master decides, the device converges, and recovery finishes what a power cut began.

How it works is on one page: docs/packages.md.
"""
