"""The device: PID 1's child, evidence, actions, hand-over, the device's command line."""
