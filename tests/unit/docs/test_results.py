"""The published results: each was made by code that a commit holds, and the page speaks of nothing that is not there."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ssd.federation.provenance import without_commit

DOCS = Path(__file__).parents[3] / "docs"
FOLDERS = sorted(path for path in (DOCS / "results").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_published_cell_was_made_by_code_that_a_commit_holds(folder: Path) -> None:
    found: dict[str, Any] = json.loads(gzip.decompress((folder / "results.json.gz").read_bytes()))
    assert found["cells"]
    for name, cell in found["cells"].items():
        codes = [cell["code"], *(each.get("code", cell["code"]) for each in cell["measures"].values())]
        for code in codes:
            assert re.fullmatch(r"[0-9a-z.-]+(, then [0-9a-z.-]+)*", code), name
            assert not without_commit(code), name


def test_the_page_links_every_report_and_no_other() -> None:
    linked = set(re.findall(r"\(results/([a-z0-9-]+)/", (DOCS / "results.md").read_text(encoding="utf-8")))
    assert linked == {path.name for path in FOLDERS}
