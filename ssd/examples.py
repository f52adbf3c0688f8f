"""An example of every `ssd` command, for its `--help`. A test lets each of them be parsed."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("demo", "demo --rounds 5 --out runs/quick", "demo --secure-aggregation active"),
    "partition make": ("partition make --data digits --clients 10 --alpha 0.1 --out digits.json",),
    "partition show": ("partition show digits.json",),
    "evaluate": (
        "evaluate encoder.safetensors --data digits",
        "evaluate encoder.safetensors --data folder --probe photographs/probe --format json",
    ),
    "embed": (
        "embed encoder.safetensors photographs --out features.npz",
        "embed encoder.safetensors photographs --out features.csv --min-side 32",
    ),
    "export": (
        "export runs/demo/ssd/encoder.safetensors --out home",
        "export encoder.safetensors --out home --licence cc-by-4.0",
        "export encoder.safetensors --format onnx --out encoder.onnx",
    ),
    "experiment": (
        "experiment deploy/experiments/digits.toml --dry-run",
        "experiment deploy/experiments/digits.toml --jobs 2",
    ),
    "report": ("report runs/experiments/digits",),
    "completion": ("completion bash", "completion zsh", "completion fish"),
}
