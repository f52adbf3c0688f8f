"""Finding methods: by name, from a user's own file, and clear words when there is none."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from ssd.method.registry import BUILT_IN, MethodError, built_in, from_file, load

OWN_METHOD = """
from dataclasses import dataclass
from ssd.methods.synthetic.method import SyntheticConfig, SyntheticMethod

@dataclass(frozen=True)
class Own:
    parameters: int = 32

def create(config):
    return SyntheticMethod(SyntheticConfig(parameters=Own(**config).parameters))
"""


def test_the_synthetic_method_is_found_by_name() -> None:
    assert load("synthetic", {"parameters": 100}).declare().spec.size == 100


def test_a_users_own_file_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN_METHOD)
    assert load(str(file), {"parameters": 64}).declare().spec.size == 64
    assert load(str(file), {}).declare().spec.size == 32


def test_files_of_one_name_do_not_shadow_each_other(tmp_path: Path) -> None:
    for folder, size in (("a", 40), ("b", 50)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "method.py").write_text(OWN_METHOD.replace("32", str(size)))
    sizes = [load(str(tmp_path / folder / "method.py"), {}).declare().spec.size for folder in "aba"]
    assert sizes == [40, 50, 40]


def test_an_edited_file_is_not_stale(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN_METHOD)
    load(str(file), {})
    file.write_text(OWN_METHOD.replace("32", "48"))
    assert load(str(file), {}).declare().spec.size == 48


def test_a_file_that_fails_fails_again(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("raise RuntimeError('broken on purpose')")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="on purpose"):
            load(str(file), {})


def test_an_unknown_name_names_its_neighbour() -> None:
    with pytest.raises(MethodError, match="did you mean synthetic"):
        load("syntetic", {})
    with pytest.raises(MethodError, match="fed_align_uniform"):
        load("zzz", {})


def test_a_file_without_create_or_without_content_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "empty.py"
    file.write_text("create = 3")
    with pytest.raises(MethodError, match="create"):
        load(str(file), {})
    with pytest.raises(MethodError, match="cannot read"):
        load(str(tmp_path / "missing.py"), {})


def test_names_lead_to_modules_of_this_folder() -> None:
    assert all(module.startswith("ssd.methods.") for module in BUILT_IN.values())


@pytest.mark.parametrize("name", ["{file}", "own.py", "own", "os", "", "ssd.methods.synthetic.method"])
def test_a_received_name_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    file = tmp_path / "own.py"
    trace = "from pathlib import Path\nPath(__file__).with_name('executed').write_text('')\n"
    file.write_text(f"{trace}{OWN_METHOD}# {file}\n")  # known content would not be executed again
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MethodError, match="unknown method"):
        built_in(name.format(file=file), {})
    assert not (tmp_path / "executed").exists()
    assert from_file(file, {}).declare().spec.size == 32
    assert (tmp_path / "executed").exists()


def test_files_are_run_only_by_what_reads_its_own_operators_words() -> None:
    """Whoever imports `load` or `from_file` can run a file; a new place must be thought about."""
    root = Path(__file__).resolve().parents[4]
    able = {
        str(file.relative_to(root))
        for package in ("ssd", "coordinator", "worker")
        for file in (root / package).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
        and node.module in ("ssd.method.registry", "ssd.method")
        and {"load", "from_file", "registry"} & {name.name for name in node.names}
    }
    assert able == {
        "ssd/experiment/grid.py",  # the experiment file that was typed on the command line
        "ssd/experiment/references.py",  # a method of the same file
        "ssd/method_host/host.py",  # what the coordinator's own configuration or `export --method` names
        "worker/training/train.py",  # the worker's own [methods] table
    }
