"""An example of every `ssd-worker` command, for its `--help`. A test lets each of them be parsed."""

from __future__ import annotations

_CONFIG = "--config worker.toml"

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "config init --out worker.toml     a file to begin with",
        "enroll --config worker.toml --token-file token",
        "doctor --config worker.toml       what would keep it from working",
        "run --config worker.toml",
    ),
    "run": (
        f"run {_CONFIG}",
        f"run {_CONFIG} --devices all",
        "run --insecure --set data.kind=digits --partition digits.json",
    ),
    "enroll": (f"enroll {_CONFIG} --token-file -", f"enroll {_CONFIG} --token-file token --replace"),
    "doctor": (f"doctor {_CONFIG}", f"doctor {_CONFIG} --patience 60 --format json"),
    "identity init": (f"identity init {_CONFIG} --signer {'ab' * 32}",),
    "identity show": (f"identity show {_CONFIG}",),
    "receipts": (f"receipts {_CONFIG}", "receipts --state-dir state/worker --format json"),
    "config init": ("config init --out worker.toml --name gpu-1 --coordinator fed.example.org:7443",),
    "config show": (f"config show {_CONFIG}", "config show --format json"),
    "config check": (f"config check {_CONFIG}",),
    "client list": (f"client list {_CONFIG}", "client list --state-dir state/worker --format json"),
    "client export": (f"client export north-garden {_CONFIG} --out north-garden.client --remove",),
    "client import": (f"client import north-garden.client {_CONFIG}",),
    "completion": ("completion bash", "completion zsh", "completion fish"),
}
