"""Reads a page of a report as a browser would, and checks that it needs nothing else."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = "<img src=x onerror=alert(1)>\"'&"


class Page(HTMLParser):
    """Tags with their attributes; closing tags must fit."""

    VOID = ("meta", "img", "input", "link", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str, name: str = "") -> list[dict[str, str | None]]:
        """Attributes of every tag of a kind, with a class."""
        return [each for kind, each in self.tags if kind == tag and name in [*(each.get("class") or "").split(" "), ""]]


def check_alone(text: str) -> Page:
    """Parse a page that needs nothing else: no address is loaded, and the policy forbids it."""
    page = Page(text)
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in text
    assert "@import" not in text
    assert page.all("meta")[2]["content"] == (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    )
    return page
