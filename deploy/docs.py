"""What is generated from the code: `.env.example`, and the marked sections of the README.

    python -m deploy.docs write     writes them (`make docs`)
    python -m deploy.docs check     names what isn't fresh (`make check`); status 1 then

A section lies between `<!-- settings:begin -->` and `<!-- settings:end -->`.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from deploy import clients
from shared import settings
from shared.store import keys

ROOT: Final = Path(__file__).resolve().parent.parent

SECTIONS: Final[Mapping[str, Callable[[], str]]] = {
    "settings": settings.render_table,
    "keys": keys.markdown_table,
    "clients": clients.markdown_table,
}

# Files whose marked sections are generated; one that isn't there yet has none.
PAGES: Final = ("README.md", "CONTRIBUTING.md")


class MarkerError(ValueError):
    """A section begins and doesn't end, or the other way round."""


def generated(root: Path = ROOT) -> dict[Path, str]:
    """Every generated file with the text it should have.

    Raises:
        MarkerError: a page's markers don't match.
    """
    files = {root / ".env.example": settings.render_env()}
    for name in PAGES:
        page = root / name
        if page.exists():
            files[page] = with_sections(page.read_text())
    return files


def with_sections(page: str) -> str:
    """The page with every marked section as it should be.

    Raises:
        MarkerError: see the class.
    """
    for name, render in SECTIONS.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if page.count(begin) != page.count(end) or page.count(begin) > 1:
            raise MarkerError(f"{begin} and {end} are not there once each, or not at all")
        if begin in page:
            before, _, rest = page.partition(begin)
            _, marker, after = rest.partition(end)
            if not marker:
                raise MarkerError(f"{end} comes before {begin}")
            page = f"{before}{begin}\n{render()}{end}{after}"
    return page


def main(arguments: list[str]) -> int:
    if arguments not in (["write"], ["check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = {
        path: text
        for path, text in generated().items()
        if not path.exists() or path.read_text() != text
    }
    for path, text in stale.items():
        if arguments == ["write"]:
            path.write_text(text)
        else:
            print(f"{path.name} isn't fresh: run `make docs`", file=sys.stderr)
    return 1 if stale and arguments == ["check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
