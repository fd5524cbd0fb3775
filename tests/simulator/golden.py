"""Write the golden upstream streams: `python -m tests.simulator.golden [--check]`.

One file per situation of `frames.SITUATIONS` under `tests/golden/upstream/`; deterministic, so a change in a
builder is a reviewed diff.
"""

import sys
from pathlib import Path

from tests.simulator.frames import SITUATIONS

FOLDER = Path(__file__).resolve().parent.parent / "golden" / "upstream"


def stale() -> list[str]:
    """Names of files that are missing, differ from their builder, or have no builder."""
    paths = FOLDER.iterdir() if FOLDER.is_dir() else []
    present = {path.name for path in paths if not path.name.startswith(".")}
    wrong = [name for name in present if name not in SITUATIONS]
    for name, build in SITUATIONS.items():
        if name not in present or (FOLDER / name).read_bytes() != build():
            wrong.append(name)
    return sorted(wrong)


def write() -> list[str]:
    """Bring the folder up to date; returns the names that changed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    changed = stale()
    for name in changed:
        if name in SITUATIONS:
            (FOLDER / name).write_bytes(SITUATIONS[name]())
        else:
            (FOLDER / name).unlink()
    return changed


def main(arguments: list[str]) -> int:
    if "--check" in arguments:
        names = stale()
        print("\n".join(names) if names else "golden upstream files are fresh")
        return 1 if names else 0
    names = write()
    print(f"{len(SITUATIONS)} situations, {len(names)} files changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
