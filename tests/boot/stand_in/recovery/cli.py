"""Runs the Python text it is given: so a test can try what the executable can do on the host itself."""


def main(arguments: list[str]) -> int:
    exec(arguments[1], {"arguments": arguments})
    return 0
