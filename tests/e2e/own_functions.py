"""Functions that may be tools: `tools.function_modules = ["tests.e2e.own_functions"]`."""


def shout(text: str) -> str:
    return text.upper()
