"""The page of exit codes is the code's, and every fault an operator can put right ends with a code of its program's table."""

from __future__ import annotations

import pytest

from coordinator import errors as coordinator_errors
from coordinator.cli import main as coordinator_cli
from exit_codes_page import PAGE, faults, page, told
from ssd import cli as ssd_cli
from ssd.daemon.cli.help_text import commands
from ssd.daemon.cli.terminal import EXIT_CODES as SSD_CODES
from worker import errors as worker_errors
from worker.cli import main as worker_cli

PROGRAMS = {
    "coordinator": (coordinator_cli, coordinator_errors.EXIT_CODES),
    "worker": (worker_cli, worker_errors.EXIT_CODES),
    "ssd": (ssd_cli, SSD_CODES),
}


def test_the_page_of_exit_codes_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "docs/exit-codes.md is not what the code says: make docs"
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_and_table_have_the_same_codes(program: str) -> None:
    module, codes = PROGRAMS[program]
    for path, command in commands(module.cli):
        assert set(told(command)) == set(codes), path
    assert told(module.cli) == codes


@pytest.mark.parametrize(
    ("package", "root"),
    [("coordinator", coordinator_errors.OperatorFault), ("worker", worker_errors.OperatorFault)],
)
def test_every_fault_ends_with_a_code_of_the_table(package: str, root: type[Exception]) -> None:
    known = faults(package, root)
    assert len(known) > 8
    assert {code for code, _, _ in known} <= set(PROGRAMS[package][1]) - {0, 1, 130}
    assert all(sentence for _, _, sentence in known)
    words = [word for _, word, _ in known]
    assert len(words) == len(set(words)), "one word ends with two codes"


@pytest.mark.parametrize("program", PROGRAMS)
def test_wrong_usage_is_the_tables_code_for_it(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, codes = PROGRAMS[program]
    try:
        code = module.main(["no-such-command"])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert codes[2].startswith("usage")
    assert "No such command" in capsys.readouterr().err
