"""Comments that stand for left-out code are found; what only sounds like them is not."""

import pytest

from workflow.tool.placeholder import find_placeholder


@pytest.mark.parametrize(
    "line",
    [
        "# ... existing code ...",
        "// ... rest of the code ...",
        "    # ... rest of methods ...",
        "/* ... existing styles ... */",
        "<!-- ... rest of file ... -->",
        "// rest of the implementation...",
        "... (rest of the file unchanged)",
        "# The rest of the code remains the same",
        "// … existing imports …",
        "{/* ... remaining markup ... */}",
        "# ... same as before ...",
        "# ... other methods omitted for brevity",
    ],
)
def test_a_placeholder_is_found_with_its_line(line: str) -> None:
    assert find_placeholder(f"import os\n\n{line}\n") == (3, line.strip())


@pytest.mark.parametrize(
    "line",
    [
        "...",
        "    ...  # an empty body",
        "# Load the rest of the file into memory",
        "print('... loading existing code ...')",
        "for rest in remaining_files:",
        "# existing code paths are covered by tests",
        "The existing files are kept... unless you say so",
        "x = [1, 2, ...]",
        "# TODO: more tests",
        "- ... and other stories",
    ],
)
def test_ordinary_text_is_not_one(line: str) -> None:
    assert find_placeholder(line) is None


def test_a_line_that_the_file_already_has_is_meant() -> None:
    assert find_placeholder("a\n  # ... existing code ...", kept="# ... existing code ...\n") is None
