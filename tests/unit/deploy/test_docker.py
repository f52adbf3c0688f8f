"""deploy/docker: what the Dockerfile says fits the project, and the reader that the clean-root scripts carry it out with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path, PurePosixPath

import pytest
import yaml

from deployment.dockerfile import DockerfileError, Stage, context, expand, ignored, parse

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
STAGES = parse(TEXT)
FINAL = STAGES[-1]
CONTEXT = context(ROOT, (ROOT / "deploy" / "docker" / "Dockerfile.dockerignore").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCRIPTS = set(PROJECT["project"]["scripts"])


def copied() -> list[str]:
    return [
        source
        for stage in STAGES
        for each in stage.instructions
        if each.name == "COPY" and "from" not in each.flags
        for source in each.words[:-1]
    ]


def test_it_builds_in_one_stage_and_ships_another() -> None:
    assert [stage.name for stage in STAGES] == ["build", "1"]
    assert len({stage.base for stage in STAGES}) == 1  # the virtual environment needs the same interpreter
    taken = {each.flags["from"] for each in FINAL.instructions if "from" in each.flags}
    assert taken == {"build"}
    assert not any("pip" in word for each in FINAL.instructions if each.name == "RUN" for word in each.words)


def test_what_is_taken_from_outside_is_pinned() -> None:
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", FINAL.base)
    minor = re.match(r"python:(3\.\d+)", FINAL.base)
    assert minor is not None
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert tuple(map(int, minor[1].split("."))) >= tuple(map(int, lowest.split(".")))


def test_whatever_pip_installs_is_hashed_but_a_build_of_pytorch_that_somebody_asks_for() -> None:
    lines = [
        line for each in STAGES[0].instructions if each.name == "RUN" for line in commands(each.words[-1])
    ]
    installs = [line for line in lines if "pip install" in line]
    named = [line for line in installs if "--require-hashes" not in line]
    assert len(installs) > len(named)
    assert [re.sub(r"\s+", " ", line) for line in named] == [
        'pip install "torch${TORCH:+==$TORCH}" "torchvision${TORCHVISION:+==$TORCHVISION}" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}',
        "pip install --no-deps --no-build-isolation .",
    ]
    for line in installs:
        for name in re.findall(r"-r (\S+)", line):
            assert (ROOT / name).exists(), name


def commands(shell: str) -> list[str]:
    return [part.strip() for part in re.split(r"&&|;|\bthen\b|\belse\b|\bfi\b", shell) if part.strip()]


def test_the_image_has_a_bill_of_materials() -> None:
    last = [each.words[-1] for each in STAGES[0].instructions if each.name == "RUN"][-1]
    assert "cyclonedx-py environment" in last
    assert "--output-file /opt/ssd/share/sbom.json /opt/ssd/bin/python" in last


def test_it_runs_as_a_user_that_it_makes_and_that_is_not_root() -> None:
    user = FINAL.last("USER")
    assert user is not None
    uid, _, gid = user.words[0].partition(":")
    assert uid == gid
    assert int(uid) > 0
    made = next(
        each.words[-1] for each in FINAL.instructions if each.name == "RUN" and "useradd" in each.words[-1]
    )
    assert f"groupadd --gid {gid} " in made  # useradd alone gives a group that has another number
    assert f"useradd --uid {uid} --gid {gid} " in made
    after = FINAL.instructions[FINAL.instructions.index(user) :]
    assert not [each for each in after if each.name in ("RUN", "COPY")]


def test_every_source_is_in_the_context_and_every_package_is_copied() -> None:
    for source in copied():
        assert any(str(file) == source or PurePosixPath(source) in file.parents for file in CONTEXT), source
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    for name in (*wheel, PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]):
        assert name.split("/")[0] in copied(), name


def test_the_context_has_no_keys_and_nothing_that_git_does_not_have() -> None:
    assert not [file for file in CONTEXT if {"pki", "__pycache__", ".git"} & set(file.parts)]
    assert {file.parts[0] for file in CONTEXT} == {source.split("/")[0] for source in copied()}


def test_every_command_is_a_program_of_the_project() -> None:
    command = FINAL.last("CMD")
    assert command is not None
    assert command.words[0] in SCRIPTS
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    own = [each for each in compose.values() if each["image"].startswith("${SSD_IMAGE")]
    assert own
    for each in own:
        if "entrypoint" not in each:
            assert each["command"][0] in SCRIPTS
    for file in ("coordinator.yaml", "worker.yaml"):
        for value in yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / file).read_text()):
            if value["kind"] == "StatefulSet":
                for container in value["spec"]["template"]["spec"]["containers"]:
                    assert container["command"][0] in SCRIPTS


def stage(text: str) -> Stage:
    (only,) = parse(text)
    return only


def test_lines_go_on_and_comments_between_them_do_not_count() -> None:
    first, second = stage('FROM a:1 AS x\nRUN one \\\n# not this\n  && two\nCMD ["a", "b c"]\n').instructions
    assert first.words[-1].split() == ["one", "&&", "two"]
    assert second.words == ("a", "b c")


def test_a_build_argument_replaces_a_default_and_reaches_a_stage_only_where_it_is_named() -> None:
    text = "ARG V=1\nFROM a:$V\nARG V\nARG W=2\n"
    assert [each.words for each in stage(text).instructions] == [("V=1",), ("W=2",)]
    (changed,) = parse(text, {"V": "3", "W": "4"})
    assert changed.base == "a:3"
    assert [each.words for each in changed.instructions] == [("V=3",), ("W=4",)]


@pytest.mark.parametrize(
    ("text", "value"),
    [("$A-$B", "1-"), ("${A}b", "1b"), ("${A:+x}${B:+x}", "x"), ("${A:-x}${B:-y}", "1y"), ("/x:$A", "/x:1")],
)
def test_variables_are_filled_in(text: str, value: str) -> None:
    assert expand(text, {"A": "1", "B": ""}, 1) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no FROM"),
        ("RUN true", "before the first FROM"),
        ("FROM a\nHEALTHCHECK CMD true", "unknown instruction"),
        ("FROM a\nRUN --mount=type=cache,target=/x pip", "RUN --mount"),
        ("FROM a\nCOPY --chmod=700 a b", "COPY --chmod"),
        ("FROM --platform=x a", "FROM --platform"),
        ("FROM a\nRUN <<EOF\nEOF", "here-document"),
        ("FROM a\nENV A 1", "ENV A 1"),
        ("FROM a\nRUN true \\", "goes on"),
        ("FROM ${A#b}", "#b"),
    ],
)
def test_what_the_reader_does_not_know_is_refused(text: str, reason: str) -> None:
    with pytest.raises(DockerfileError, match=re.escape(reason)):
        parse(text)


def test_a_build_argument_that_nothing_takes_is_refused() -> None:
    with pytest.raises(DockerfileError, match="TORCHES"):
        parse(TEXT, {"TORCHES": "1"})


def test_the_last_pattern_that_matches_decides() -> None:
    out = ignored("# all but\n*\n!kept\n**/cache\n!kept/cache/this\n")
    paths = ("a", "a/b", "kept", "kept/a", "kept/cache", "kept/x/cache/y", "kept/cache/this", "cache")
    assert [path for path in paths if not out(PurePosixPath(path))] == ["kept", "kept/a", "kept/cache/this"]
    with pytest.raises(DockerfileError):
        ignored("[a-z]")
