"""Text that somebody else wrote: cleaned of what a person would not see, and fenced, so that a model can tell it apart.

Whatever comes from the web, from a search or from an MCP server goes through here before a model reads it.
"""

import re

TAG = "untrusted_content"

# Zero width, directions, variation selectors, tags, fillers, soft hyphens, controls. Two joiners stay where they join.
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\x00-\x08\x0b-\x1f\x7f-\x9f]|(?<!\\w)[\u200c\u200d]|[\u200c\u200d](?=[\u200c\u200d]|\\s|$)"
)
FENCE = re.compile(rf"[<\uff1c\ufe64](?=\s*+(?:/\s*+)?{TAG})", re.IGNORECASE)


def fenced(text: str, source: str) -> str:
    """`text` as a model may read it. `source` says where it is from."""
    quoted = cleaned(source).replace("&", "&amp;").replace('"', "&quot;").replace("\n", " ")
    return f'<{TAG} source="{quoted}">\n{cleaned(text)}\n</{TAG}>'


def cleaned(text: str) -> str:
    """Without what is invisible, without HTML comments, and without a fence of its own. Linear in its length."""
    visible = INVISIBLE.sub("", text.replace("\r\n", "\n"))
    return FENCE.sub("&lt;", without_comments(visible))


def without_comments(text: str) -> str:
    """Before a text is cut: a comment that lost its end is no comment any more."""
    kept, position = [], 0
    while (start := text.find("<!--", position)) >= 0 and (end := text.find("-->", start + 4)) >= 0:
        kept.append(text[position:start])
        position = end + 3
    return "".join([*kept, text[position:]])
