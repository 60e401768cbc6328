"""What a human's answer to a question of an agent means."""

from typing import Any

YES = ("yes", "ok", "approve", "approved")


def meaning(answer: Any) -> tuple[bool, str]:
    """Whether it approves, and what it says beside that. What is not plainly a yes is none."""
    if isinstance(answer, dict):
        return answer.get("approved") is True, str(answer.get("comment") or "")
    if isinstance(answer, str):
        approved = answer.strip().lower() in YES
        return approved, "" if approved else answer.strip()
    return answer is True, ""
