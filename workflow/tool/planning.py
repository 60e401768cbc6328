"""The job's plan and the list of todos, as the model reads them. They are kept in the conversation's memory."""

from collections.abc import Iterator, Sequence

from shared.types import JSON
from workflow.tool.memory import Memory

MARKS = {"pending": "[ ]", "in_progress": "[>]", "completed": "[x]", "cancelled": "[-]", "skipped": "[-]"}


def todo_lines(todos: Sequence[JSON]) -> list[str]:
    return [f"{MARKS[todo['status']]} {todo['id']}. {todo['content']}" for todo in todos]


def plan_lines(plan: JSON) -> Iterator[str]:
    approval = {"approved": ", approved by the user", "rejected": ", not approved by the user"}
    yield f"Job plan, version {plan['version']}{approval.get(plan['approval'], '')}: {plan['title']}"
    for step in plan["steps"]:
        yield f"{MARKS[step['status']]} {step['id']}. {step['title']}"


def standing(memory: Memory) -> str:
    """What still stands of them, for a model that has lost sight of it; empty where there is nothing."""
    parts = [*plan_lines(memory.plan)] if memory.plan else []
    if memory.todos:
        parts += ["Todos:", *todo_lines(memory.todos)]
    return "\n".join(parts)


def with_ids(items: Sequence[JSON], before: Sequence[JSON], name: str) -> list[JSON]:
    """Each with an `id` of its own: the one given, that of the item of the same `name` before, or the next number."""
    known = {item[name]: item["id"] for item in before}
    taken: set[str] = set()
    numbered = []
    reserved = {item["id"] for item in items if item["id"]}
    for item in items:
        wanted = item["id"] or known.get(item[name])
        if not wanted or wanted in taken or (not item["id"] and wanted in reserved):
            wanted = next(n for n in map(str, range(1, len(items) + len(reserved) + 2)) if n not in taken | reserved)
        taken.add(wanted)
        numbered.append({**item, "id": wanted})
    return numbered
