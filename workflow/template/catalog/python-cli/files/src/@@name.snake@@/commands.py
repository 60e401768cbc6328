"""What the program can do. `count_words` is an example, to be replaced."""

from pathlib import Path


def count_words(file: Path) -> int:
    """Raises OSError when the file cannot be read."""
    return len(file.read_text(encoding="utf-8").split())
