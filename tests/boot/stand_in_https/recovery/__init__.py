"""Stands in for the real package in the executable that the tests of TLS freeze: it runs any Python text."""
