"""docs/taking-the-model-home.md: its commands and programs are run, in the order of the page, in one folder."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from ssd import cli
from ssd.data.images.source import ImageFormat
from ssd.models.registry import ModelConfig
from training.portable_encoders import FACTS, write

PAGE = Path(__file__).resolve().parents[3] / "docs" / "taking-the-model-home.md"
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_everything_on_the_page_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    image = ImageFormat(size=8, channels=1)
    write(tmp_path / "encoder.safetensors", ModelConfig(name="small", feature_dim=6, width=4), image, **FACTS)
    shapes = []
    blocks = BLOCK.findall(PAGE.read_text())
    assert [kind for kind, _ in blocks] == ["console", "python", "python", "console", "python"]
    for kind, text in blocks:
        if kind == "python":
            monkeypatch.syspath_prepend(str(tmp_path / "home"))
            names: dict[str, object] = {}
            exec(compile(text, str(PAGE), "exec"), names)  # the page's programs are what is tested
            if "features" in names:
                shapes.append(tuple(names["features"].shape))
            continue
        for line in text.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "ssd"
            with pytest.raises(SystemExit) as ended:
                cli.main(arguments)
            assert not ended.value.code, capsys.readouterr().err
    sys.modules.pop("encoder", None)
    assert shapes == [(4, 6), (4, 6)]
    listed = re.findall(r"^\| `([\w.]+)` \| ", PAGE.read_text().split("## Loading it")[0], re.MULTILINE)
    written = {path.name for path in (tmp_path / "home").iterdir()}
    assert written == set(listed) - {"model.safetensors"}
    assert "largest absolute difference" in capsys.readouterr().out
