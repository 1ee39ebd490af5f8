"""docs/architecture.md says what the package is: its rooms, in the order of their floors, and its modules."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import lensai_integrations
from lensai_integrations import errors, problems

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(lensai_integrations.__file__).parent
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FOLDERS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
#: A row of the table begins with one room, or with several that share it.
TABLE = re.findall(r"^\| (`.+?`) \|", PAGE.partition("## Words")[0], re.M)
ROOMS = [room for row in TABLE for room in re.findall(r"`(\w+)`", row)]


def floors() -> list[set[str]]:
    """The floors of the import contract, from the ground; without the two modules that all rooms stand on."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    rooms = [set(layer.split(" | ")) for layer in reversed(layers)]
    return [floor for floor in rooms if floor <= FOLDERS]


def test_the_table_has_every_room_once() -> None:
    assert sorted(ROOMS) == sorted(FOLDERS)


def test_the_table_goes_up_floor_by_floor() -> None:
    level = {room: number for number, floor in enumerate(floors()) for room in floor}
    assert [level[room] for room in ROOMS] == sorted(level.values())


def test_rooms_of_one_floor_are_said_to_be() -> None:
    (listed,) = re.findall(r"beside it on its floor\n\((.+?)\)", PAGE, re.S)
    said = [set(re.findall(r"`(\w+)`", floor)) for floor in listed.split(";")]
    assert said == [floor for floor in floors() if len(floor) > 1]


def test_every_room_is_in_the_picture() -> None:
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    drawn = {name for text in re.findall(r"<text[^>]*>([^<]+)</text>", picture) for name in text.split(" | ")}
    assert drawn >= FOLDERS


@pytest.mark.parametrize("module", sorted(set(re.findall(r"`([\w/]+\.py)`", PAGE))))
def test_every_module_it_names_exists(module: str) -> None:
    assert (PACKAGE / module).is_file()


def test_the_top_level_holds_what_it_says() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert modules == {module.__name__.rpartition(".")[2] for module in (errors, problems)}
    assert all(f"`{name}.py`" in PAGE for name in modules)
