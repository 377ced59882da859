"""The master's side: from repositories, a wish and the last known states of devices to one signed transaction.

Runs on the build host only. What a device must do with it is decided here once, for all devices that it is for.
"""
