"""Stands in for the real package in the executable that test_supervisor.py and test_native.py freeze."""
