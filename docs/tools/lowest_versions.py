"""The lowest versions that pyproject.toml admits, as a constraints file: `python docs/tools/lowest_versions.py`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "deploy" / "requirements" / "lowest.txt"
HEAD = "# Made from the lower bounds in pyproject.toml by docs/tools/lowest_versions.py (make docs).\n"
_BOUND = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(?:>=|==)\s*([0-9][^,;\s]*)")


def lowest() -> str:
    """One `name==version` line for every requirement with a lower bound, sorted by name.

    Raises:
        ValueError: a requirement has no lower bound.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = settings["project"]
    groups = settings["dependency-groups"].values()
    wanted = [
        *project["dependencies"],
        *(each for group in groups for each in group if isinstance(each, str)),
    ]
    extras = project["optional-dependencies"].values()
    wanted += [each for extra in extras for each in extra if not each.startswith(f"{project['name']}[")]
    pins = {}
    for requirement in wanted:
        found = _BOUND.match(requirement)
        if found is None:
            raise ValueError(f"{requirement!r} has no lower bound")
        pins[found[1].lower()] = found[2]
    return HEAD + "".join(f"{name}=={version}\n" for name, version in sorted(pins.items()))


if __name__ == "__main__":
    print(lowest(), end="")
