"""The model card: every fact of the file, nothing that is not so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from ssd.data.images.decode import Decoding, decode
from ssd.data.images.source import ImageFormat
from ssd.export.card import model_card
from ssd.export.source import read_source
from ssd.models.registry import ModelConfig
from training.portable_encoders import FACTS, GREY, PROVENANCE, write

SMALL = ModelConfig(name="small", feature_dim=6, width=4)
GREY_8 = ImageFormat(size=8, channels=1)


class TestCard:
    def card(self, path: Path, **facts: str) -> str:
        return model_card(
            read_source(write(path, SMALL, GREY_8, normalise=GREY, **facts)), licence="x", files=[]
        )

    def test_what_it_says_of_cropping_is_what_happens_to_files(self, tmp_path: Path) -> None:
        card = " ".join(self.card(tmp_path / "e").split())
        assert "cropped to the centred square and resized (bilinear, with antialiasing)" in card
        wide = Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 90, 3), dtype=np.uint8))
        wide.save(tmp_path / "wide.png")
        square = wide.crop((30, 0, 60, 30)).resize((15, 15), Image.Resampling.BILINEAR)
        seen = decode(tmp_path / "wide.png", Decoding(side=15, channels=3)).transpose(1, 2, 0)
        inner = np.s_[:, 1:-1]  # at the cut, scaling still sees the pixels beside it
        np.testing.assert_allclose(seen[inner].astype(int), np.asarray(square)[inner].astype(int), atol=1)

    def test_every_fact_of_the_file_is_in_it(self, tmp_path: Path) -> None:
        card = self.card(tmp_path / "e", **FACTS, trained_on="digits")
        for fact in (
            "# small encoder, version 3 of run run-7",
            "| clients registered | 12 |",
            "| clients whose updates are in it | 11 |",
            "| clients in the last round | 7 |",
            "| aggregation weight in the last round | 987 |",
            "| aggregation weight over all rounds | 4321 |",
            "| data set, as the exporter named it | digits |",
            "| rounds committed | 3 |",
            "| `lr` | `0.05` |",
            f"| model digest | `{'ab' * 32}` |",
            f"| declaration digest | `{'ef' * 32}` |",
            f"| digest of the version before | `{'cd' * 32}` |",
            "| `knn_all` | 0.75 |",
            "Secure aggregation: active:",
            "epsilon 2 at delta 1e-05 after 3 rounds",
            "mean (0.2) and std (0.5)",
            "was to have 20 rounds; this is the encoder after 3",
        ):
            assert fact in card, fact
        assert "unknown" not in card.replace("is unknown, and so is how that shows", "")

    def test_what_the_file_does_not_say_is_unknown(self, tmp_path: Path) -> None:
        card = self.card(tmp_path / "e")
        for fact in (
            "version unknown of run unknown",
            "| clients registered | unknown |",
            "| declaration digest | unknown |",
            "Configuration of the method: unknown",
            "Secure aggregation: unknown. Differential privacy: unknown.",
        ):
            assert fact in card, fact
        assert "off" not in card.split("## Privacy")[1].split("##")[0]

    def test_privacy_is_off_only_where_the_coordinator_said_so(self, tmp_path: Path) -> None:
        plain = {**PROVENANCE, "privacy": "", "secure_aggregation": "off"}
        card = self.card(tmp_path / "e", **{**FACTS, "provenance": json.dumps(plain)})
        assert "Secure aggregation: off: the coordinator saw" in card
        assert "Differential privacy: off; nothing bounds" in card
        del plain["privacy"]
        card = self.card(tmp_path / "e", **{**FACTS, "provenance": json.dumps(plain)})
        assert "Differential privacy: unknown." in card

    def test_text_from_the_file_stays_text(self, tmp_path: Path) -> None:
        nasty = "a|b`c\n---\n# Title\n<script>x</script> [l](http://evil) ![i](u)" + "z" * 5000
        config = json.dumps({nasty: nasty})
        facts = dict.fromkeys(("run", "version", "method", "trained_on", "model_digest"), nasty)
        provenance = dict.fromkeys(PROVENANCE, nasty) | {
            "statistics": {"weight": nasty},
            "evaluation": {nasty: nasty},
        }
        card = self.card(tmp_path / "e", **facts, config=config, provenance=json.dumps(provenance))
        _, front, body = card.split("---\n", 2)
        assert yaml.safe_load(front)["datasets"] == [nasty[:300]]
        plain = "\n".join(line for line in body.splitlines() if not line.startswith("|"))
        assert "<script" not in plain
        assert "](" not in plain
        assert "://" not in plain
        assert [line for line in body.splitlines() if line.startswith("# ")] == [body.strip().splitlines()[0]]
        rows = [line.replace("\\|", "") for line in body.splitlines() if line.startswith("|")]
        assert rows
        assert {line.count("|") for line in rows} == {3}
        assert all(line.count("`") % 2 == 0 for line in body.splitlines())
        assert max(map(len, body.splitlines())) < 3000

    def test_the_front_matter_is_yaml_whatever_the_licence(self, tmp_path: Path) -> None:
        source = read_source(write(tmp_path / "e", SMALL, GREY_8))
        for licence in ("unknown: say what applies", "cc-by-4.0", 'x"\n---\ny: [', "äö"):
            front = model_card(source, licence=licence, files=[]).split("\n---\n")[0].removeprefix("---\n")
            assert yaml.safe_load(front)["license"] == licence
