"""The installed name of the toolkit: a launcher in front of ``unbrick/lib``."""
