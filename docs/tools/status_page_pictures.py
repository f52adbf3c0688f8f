"""The pictures in docs/status-page.md, of a real run: `PYTHONPATH=.:proto:tests/support python docs/tools/status_page_pictures.py`.

SSD on scikit-learn's digits, ten clients at three workers, and an evaluator that goes away; takes a few minutes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from processes.chromium import Browser
from processes.federation import ROOT, Federation
from ssd.data.images.source import ImageFormat
from ssd.data.open import DataConfig, open_builtin
from ssd.data.partition.partition import dirichlet, save

CLIENTS = [f"client-{index:03d}" for index in range(10)]
SETTINGS = {
    "run.mode": "elastic",
    "run.rounds": 40,
    "run.when_done": "serve",
    "run.expected_clients": 10,
    "round.cohort_size": 8,
    "round.min_updates": 4,
    "round.deadline_seconds": 600.0,
    "evaluation.every": 1,
    "method.name": "ssd",
    "method.config": {
        "image": {"size": 8, "channels": 1},
        "model": {"name": "small"},
        "views": "digits",
        "local_epochs": 1,
        "batch_size": 64,
        "lr": 0.05,
        "quality": {"features": ["h", "z"], "images": 150, "min_images": 64},
    },
}
TAKEN_AT = 12
"""Version."""


def main() -> None:
    """Run the federation, and write the pictures."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        partition = root / "partition.json"
        digits = open_builtin(DataConfig(kind="digits"), ImageFormat(size=8, channels=1))
        save(dirichlet(digits.train.labels.tolist(), 10, 1.0, 5, dataset="digits"), partition)
        with Federation(root, **SETTINGS) as federation, Browser(root) as browser:
            federation.start_coordinator()
            data = {"data.kind": "digits", "data.partition": partition}
            for index in range(3):
                federation.start_worker(f"site-{index}", CLIENTS[index::3], config=data)
            federation.start_worker("evaluator-1", [], config=data)
            federation.until(
                lambda: federation.status().version.number >= TAKEN_AT, "versions", patience=1800
            )
            federation.workers["evaluator-1"].terminate()
            browser.size(1160, 1000)
            browser.open(f"http://127.0.0.1:{federation.http_port}/")
            browser.until("document.querySelectorAll('#clients-list tbody tr').length > 0")
            browser.until("document.querySelector('#cohort #map .cell') !== null")
            for scheme in ("light", "dark"):
                browser.prefer(scheme)
                browser.evaluate("window.scrollTo(0, 0)")
                browser.picture(ROOT / "docs" / "pictures" / f"status-page-{scheme}.png")


if __name__ == "__main__":
    main()
