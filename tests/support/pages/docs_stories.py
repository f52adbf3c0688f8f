"""Which of the documentation's commands are executed, in which story; and which are not, and why.

A **story** is a federation of real processes in a folder of its own that goes through blocks of several pages, one
after the other (`tests/e2e/tools/test_docs.py`). What another page of the story has done is not done again. A command that stands in no story and not in `NOT_EXECUTED` fails `tests/unit/docs/test_commands.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pages.docs_pages import PAGES, Block, blocks

STORIES: Mapping[str, tuple[str, ...]] = {
    "digits": (
        "README.md#By hand, in two terminals",
        "docs/quickstart.md#A federation of digits",
        "docs/evaluation.md#What an encoder is worth: `ssd evaluate`",
    ),
    "photographs": (
        "README.md#Your own images",
        "docs/quickstart.md#Your own images",
        "docs/python.md#Features of images",
    ),
    "hospital": (
        "docs/configuration.md#Configuration",
        "docs/secure-aggregation.md#Setting up level `active`/1",
        "docs/enrolment.md#Setting up/1",
        "docs/enrolment.md#Setting up/2",
        "docs/secure-aggregation.md#Setting up level `active`/2",
        "docs/secure-aggregation.md#Setting up level `active`/3",
        "docs/enrolment.md#Setting up/3",
        "docs/handbook.md#Every day/1",
        "docs/tracking.md#Curves in TensorBoard",
        "docs/secure-aggregation.md#Auditing",
        "docs/enrolment.md#Leaving",
    ),
    "server": (
        "docs/deployment.md#A server and three GPU hosts",
        "docs/status-page.md#Who sees and does what",
    ),
    "tests/unit/docs/test_taking_home.py": (
        "docs/taking-the-model-home.md#Taking the model home: `ssd export`",
        "docs/taking-the-model-home.md#ONNX",
    ),
}
"""Story, or the test that executes a page by itself -> the places it goes through. `/2` is the second block of
commands under that heading; without a number it is all of them."""

NOT_EXECUTED: Mapping[str, str] = {
    "make demo": "takes two minutes; `ssd demo`, all it does, is run by test_e2e_demo.py",
    "make test": "is what runs this",
    "pip install ": "there is no index with this project on it; `make` installs both extras",
    "tensorboard --logdir": "serves until it is stopped; test_e2e_tracking.py reads the files with TensorBoard's reader",
    'eval "$(ssd-coordinator completion': "for a shell's start file; test_completion.py has the shells that are here",
    "ssd-coordinator completion fish": "the same",
    "python3 -m venv ": "installs PyTorch, gigabytes; `make` does the same before every test run",
    "ssd experiment deploy/experiments/digits.toml": "minutes; test_e2e_experiment.py runs it on a smaller grid",
    "ssd experiment deploy/experiments/digits-": "tens of minutes; as above",
    "ssd experiment deploy/experiments/secure-aggregation.toml": "minutes; as above",
    "ssd report runs/experiments/": "of an experiment that takes minutes or hours; test_e2e_experiment.py makes one",
    "SSD_DATA_ROOT=": "needs data sets that are downloaded, and hours",
    "ssd-worker receipts --config": "test_secure_audit.py and test_receipts.py compare receipts with transcripts",
    "ssd evaluate encoder.safetensors --data cifar10": "needs a data set that is downloaded",
}
"""Beginning of a command -> why no test executes it."""

NOT_EXECUTED_PLACES: Mapping[str, str] = {
    "docs/secure-aggregation.md#The federation policy": "tests/unit/coordinator/cli/test_policy.py types them; workers"
    " take part under such a policy in tests/e2e/secure/test_secure_active.py",
    "docs/deployment.md#A Slurm cluster": "needs a cluster; test_deploy_scripts.py checks the jobs' options",
    "docs/deployment.md#Hosts reached by SSH": "needs hosts; test_deploy_scripts.py rehearses the script",
}
"""Heading -> why no command under it is executed."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A command and where it stands."""

    place: str
    command: str


def blocks_at(place: str) -> Iterator[Block]:
    """The blocks of commands that a story means by a place."""
    name, _, number = place.rpartition("/")
    if not number.isdigit():
        name, number = place, ""
    page = name.partition("#")[0]
    found = [block for block in blocks(page) if block.place == name and block.commands]
    yield from [found[int(number) - 1]] if number else found


def told() -> frozenset[Shown]:
    """Every command that a story executes, or a test by itself."""
    return frozenset(
        Shown(block.place, command)
        for places in STORIES.values()
        for place in places
        for block in blocks_at(place)
        for command in block.commands
        if left_out(Shown(block.place, command)) is None
    )


def shown() -> Iterator[Shown]:
    """Every command of every page."""
    for page in PAGES:
        for block in blocks(page):
            yield from (Shown(block.place, command) for command in block.commands)


def left_out(shown: Shown) -> str | None:
    """Which entry of `NOT_EXECUTED_PLACES` or `NOT_EXECUTED` a command falls under."""
    if shown.place in NOT_EXECUTED_PLACES:
        return shown.place
    return next((beginning for beginning in NOT_EXECUTED if shown.command.startswith(beginning)), None)
