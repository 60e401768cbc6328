"""When old text is not found, the model sees the closest place and what differs there."""

from workflow.tool.nearest import describe_nearest, nearest_region

CODE = [
    "import os",
    "",
    "def total(values):",
    "    result = 0",
    "    for value in values:",
    "        result += value",
    "    return result",
]


def test_the_closest_lines_are_shown_with_the_first_difference() -> None:
    old = ["    for value in values:", "        result += values"]
    region = nearest_region(CODE, old)
    assert region is not None
    assert (region.first, region.differs) == (5, 6)
    text = describe_nearest(CODE, old)
    assert "lines 5-6" in text
    assert "     5→    for value in values:" in text
    assert "the file has    '        result += value'" in text
    assert "old_string has  '        result += values'" in text


def test_old_text_that_goes_beyond_the_end_of_the_file_is_still_placed() -> None:
    region = nearest_region(CODE, ["    return result", "x", "y"])
    assert region is None or region.first == 7


def test_nothing_alike_says_so() -> None:
    assert nearest_region(CODE, ["completely different text here"]) is None
    assert describe_nearest([], ["a"]).startswith("Nothing in the file is like it")


def test_a_large_file_takes_no_long_time() -> None:
    lines = [f"value_{n} = compute({n}) + offset" for n in range(50_000)]
    region = nearest_region(lines, ["value_7 = compute(7) - offset", "value_8 = compute(8) + offset"])
    assert region is not None
    assert region.first == 8
