"""What stops a stack."""


class StackError(Exception):
    """Its text is for the person at the terminal: what happened and what to do."""
