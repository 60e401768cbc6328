"""What can be asked next: OpenAPI links from whatever makes something to whatever takes its id."""

from shared.types import JSON

_MADE = {
    "initiateThread": ("thread_id", "thread_id"),
    "forkThread": ("thread_id", "thread_id"),
    "execute": ("run_id", "run_id"),
    "retryRun": ("run_id", "id"),
    "forkRun": ("run_id", "id"),
}
"""Beside POST to a collection: the parameter that is the new thing's id, and the member of the answer that has it."""


def add_links(paths: JSON) -> None:
    """To a description's paths."""
    takers = _takers(paths)
    for path, methods in paths.items():
        made = _MADE.get(methods.get("post", {}).get("operationId")) or _made_in(path, paths)
        if "post" in methods and made:
            parameter, member = made
            link = {parameter: f"$response.body#/{member}"}
            responses = methods["post"]["responses"]
            answer = responses.get("201") or responses["200"]
            answer["links"] = {taker: {"operationId": taker, "parameters": link} for taker in takers[parameter]}


def _takers(paths: JSON) -> dict[str, list[str]]:
    """The operations that need an id and nothing else in their path, by the id's name."""
    found: dict[str, list[str]] = {}
    for path, methods in paths.items():
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        if len(names) == 1:
            found.setdefault(names[0], []).extend(operation["operationId"] for operation in methods.values())
    return found


def _made_in(path: str, paths: JSON) -> tuple[str, str] | None:
    """An item of the collection, where there are addresses of items."""
    items = (other.removeprefix(f"{path}/") for other in paths if other.startswith(f"{path}/{{"))
    return next(((item[1:-1], "id") for item in items if "/" not in item), None)
