"""What can be asked next: where made things are, their version, and OpenAPI links to whatever takes their ids."""

from shared.types import JSON

_MAKES = {
    "initiateThread": "thread_id",
    "forkThread": "thread_id",
    "execute": "run_id",
    "retryRun": "run_id",
    "forkRun": "run_id",
    "runTask": "run_id",
}
"""Operations that make something, beside POST to a collection, and the parameter that is its id elsewhere."""

_OPENED = ("initiateThread", "forkThread")
"""Those of them that say where it is though they answer 200."""
_LOCATION: JSON = {"description": "Where it is.", "schema": {"type": "string", "format": "uri-reference"}}

_TAG: JSON = {
    "description": "Its version, which a change takes as `If-Match`.",
    "schema": {"type": "string"},
}
_DONE = ("200", "201")
_UNTAGGED = {"/api/runs"}
"""Collections whose POST answers without one."""


def add_links(description: JSON) -> None:
    paths: JSON = description["paths"]
    takers = _takers(paths)
    for path, methods in paths.items():
        operation = methods.get("post", {})
        if parameter := _MAKES.get(operation.get("operationId")) or _item_of(path, paths):
            made = operation.get("responses", {}).get("201")
            answer = made or operation.get("responses", {}).get("200")
            if made is not None or operation.get("operationId") in _OPENED:
                answer.setdefault("headers", {})["Location"] = _LOCATION
            if answer is not None:
                link = {parameter: f"$response.body#/{_member(answer, parameter, description)}"}
                answer["links"] = {taker: {"operationId": taker, "parameters": link} for taker in takers[parameter]}


def describe_tags(description: JSON) -> None:
    """`ETag` on the answers of whatever takes it as `If-Match`, and of what reads or makes the same things."""
    paths: JSON = description["paths"]
    description["components"]["headers"] = {"ETag": _TAG}
    versioned = {path for path, methods in paths.items() if any(map(_takes_tag, methods.values()))}
    collections = {path.rpartition("/")[0] for path in versioned if path.endswith("}")} - _UNTAGGED
    for path, methods in paths.items():
        for method, operation in methods.items():
            reads = method == "get" and path in versioned
            makes = method == "post" and path in collections and "201" in operation["responses"]
            answer = next((found for status in _DONE if (found := operation["responses"].get(status))), None)
            if answer is not None and (reads or makes or _takes_tag(operation)):
                answer.setdefault("headers", {})["ETag"] = {"$ref": "#/components/headers/ETag"}


def _takes_tag(operation: JSON) -> bool:
    return any(each.get("name") == "If-Match" for each in operation.get("parameters", ()))


def _takers(paths: JSON) -> dict[str, list[str]]:
    """The operations that need an id and nothing else in their path, by the id's name."""
    found: dict[str, list[str]] = {}
    for path, methods in paths.items():
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        if len(names) == 1:
            found.setdefault(names[0], []).extend(operation["operationId"] for operation in methods.values())
    return found


def _item_of(path: str, paths: JSON) -> str | None:
    """The id's name in the addresses of a collection's items, where it has any."""
    items = (other.removeprefix(f"{path}/") for other in paths if other.startswith(f"{path}/{{"))
    return next((item[1:-1] for item in items if "/" not in item), None)


def _member(answer: JSON, parameter: str, description: JSON) -> str:
    """The id's name in the answer."""
    name = answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    return parameter if parameter in description["components"]["schemas"][name]["properties"] else "id"
