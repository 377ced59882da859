"""As an ordinary process: the text is the first argument."""


def main(arguments: list[str]) -> int:
    exec(arguments[1], {"arguments": arguments})
    return 0
