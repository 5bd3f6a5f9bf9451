"""The map in docs/architecture.md shows the package as it is."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
MAP = REPOSITORY / "docs/architecture.md"


def rooms_and_modules() -> list[str]:
    """Every package below `swarmer`, with a slash at its end, and every module directly in it."""
    root = REPOSITORY / "swarmer"
    rooms = {f"{file.parent.relative_to(REPOSITORY)}/" for file in root.rglob("*.py") if file.parent != root}
    modules = {str(file.relative_to(REPOSITORY)) for file in root.glob("*.py") if not file.name.startswith("__")}
    return sorted(rooms | modules)


def mapped() -> list[str]:
    """The paths in the first column of the tables under "Where things are"."""
    section = MAP.read_text().partition("## Where things are\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return [path for cell in cells for path in re.findall(r"`(.*?)`", cell)]


def test_the_map_has_one_line_for_each_room_and_module() -> None:
    assert sorted(path for path in mapped() if path.startswith("swarmer/")) == rooms_and_modules()


@pytest.mark.parametrize("path", mapped())
def test_what_is_on_the_map_exists(path: str) -> None:
    assert (REPOSITORY / path).exists()


def test_files_named_in_the_text_exist() -> None:
    """Paths are relative to the repository, or to the package."""
    text = re.sub(r"^    .*$", "", MAP.read_text(), flags=re.MULTILINE)
    named = re.findall(r"`((?:[\w.-]+/)+[\w-]+\.(?:py|rb|md|nft|txt))`", text)
    assert len(named) > 20
    missing = [path for path in named if not any((REPOSITORY / base / path).exists() for base in ("", "swarmer"))]
    assert missing == []
