"""Checks the pages of `site/`: they are well formed, and their links lead somewhere."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = Path(__file__).parent / "site"
VOID = set("area base br col embed hr img input link meta source track wbr".split())


class Page(HTMLParser):
    """What a page holds, and what is wrong with its tags."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.faults: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.title = ""
        self.language = ""
        self._open: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self._open]
        self.faults += [] if self.title.strip() else ["it has no title"]
        self.faults += [] if self.language else ["<html> has no lang"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag not in VOID:
            self._open.append(tag)
        if tag == "html":
            self.language = values.get("lang", "")
        if tag == "img" and "alt" not in values:
            self.faults.append("an <img> has no alt")
        if name := values.get("id"):
            self.faults += [f"the id {name} is given twice"] if name in self.ids else []
            self.ids.add(name)
        self.links += [values[name] for name in ("href", "src") if name in values]

    def handle_endtag(self, tag: str) -> None:
        if self._open[-1:] != [tag]:
            self.faults.append(
                f"</{tag}> closes nothing (open: {self._open[-1:] or 'nothing'})"
            )
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["title"]:
            self.title += data


def link_fault(page: Page, link: str, pages: dict[Path, Page]) -> str | None:
    """Why a link leads nowhere; other sites are not asked."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    folder = SITE if parts.path.startswith("/") else page.file.parent
    target = (
        (folder / unquote(parts.path).lstrip("/")).resolve()
        if parts.path
        else page.file
    )
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file() or SITE.resolve() not in target.parents:
        return f"{link} leads nowhere"
    if (
        parts.fragment
        and target in pages
        and unquote(parts.fragment) not in pages[target].ids
    ):
        return f"{link}: {target.name} has no id {parts.fragment}"
    return None


def main() -> int:
    files = sorted(SITE.resolve().rglob("*.html"))
    pages = {file: Page(file) for file in files}
    faults = [
        f"{page.file.name}: {fault}" for page in pages.values() for fault in page.faults
    ]
    for page in pages.values():
        found = [link_fault(page, link, pages) for link in page.links]
        faults += [f"{page.file.name}: {fault}" for fault in found if fault]
    print("\n".join([*faults, f"{len(pages)} pages, {len(faults)} faults"]))
    return 1 if faults or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
