"""An example of every `ssd-coordinator` command, for its `--help`. A test lets each of them be parsed."""

from __future__ import annotations

_CONFIG = "--config coordinator.toml"

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "config init --out coordinator.toml     a file to begin with",
        "doctor --config coordinator.toml       what would keep it from running",
        "run --config coordinator.toml",
        "status",
        "watch                                  the same and more, live",
    ),
    "run": (f"run {_CONFIG}", f"run {_CONFIG} --rounds 300 --set log.level=debug"),
    "doctor": (f"doctor {_CONFIG}", f"doctor {_CONFIG} --format json"),
    "explain": (f"explain 12 {_CONFIG}", "explain 12 --state-dir state/coordinator --format json"),
    "config init": ("config init --out coordinator.toml", "config init --rounds 50 --insecure"),
    "config show": (f"config show {_CONFIG}", "config show --format json"),
    "config check": (f"config check {_CONFIG}",),
    "status": ("status", "status --watch", f"status {_CONFIG} --format json"),
    "watch": ("watch", f"watch {_CONFIG} --interval 5", "watch --once"),
    "rounds": ("rounds --limit 50", "rounds --format json"),
    "evaluations": ("evaluations", "evaluations --format json"),
    "clients": ("clients", "clients --format json", "clients move north-garden --to gpu-2"),
    "clients move": ("clients move north-garden --to gpu-2",),
    "pause": ("pause",),
    "resume": ("resume",),
    "drain": (f"drain {_CONFIG}",),
    "revoke": ("revoke north-garden", "revoke --worker gpu-2"),
    "export": ("export --out encoder.safetensors", "export --out v40.safetensors --version 40"),
    "track": (
        "track --tensorboard logs",
        "track --tensorboard logs --follow --every 5",
        "track --tensorboard logs --state-dir state/coordinator    of a run whose coordinator is gone",
    ),
    "ca init": ("ca init --out pki --host fed.example.org",),
    "ca issue": ("ca issue --role operator --name olga --out olga",),
    "ca show": ("ca show --pki pki",),
    "ca token": (
        f"ca token --worker gpu-1 {_CONFIG}",
        f"ca token --worker gpu-1 --clients garden,market {_CONFIG}",
    ),
    "ca tokens": (f"ca tokens {_CONFIG}",),
    "ca revoke-token": (f"ca revoke-token 3f9c2a {_CONFIG}",),
    "ca certificates": (f"ca certificates {_CONFIG}",),
    "ca revoke": (f"ca revoke --worker gpu-1 {_CONFIG}",),
    "registry keygen": ("registry keygen --out signer.key",),
    "registry new": ("registry new participants.draft --federation ssd",),
    "registry add": ("registry add participants.draft gpu-1.json --clients garden,market --max-weight 2048",),
    "registry sign": ("registry sign participants.draft --key signer.key --out participants.json",),
    "registry verify": (f"registry verify participants.json --signer {'ab' * 32} --federation ssd",),
    "registry show": ("registry show participants.json",),
    "policy draft": (f"policy draft policy.draft --federation ssd {_CONFIG}",),
    "policy sign": ("policy sign policy.draft --key signer.key --out policy.json",),
    "policy verify": (f"policy verify policy.json --signer {'ab' * 32} --federation ssd",),
    "audit": (
        "audit transcripts/*.transcript",
        "audit transcripts/round-12.transcript --format json",
        "audit transcripts/*.transcript --receipts edge-1.receipts",
    ),
    "completion": ("completion bash", "completion zsh", "completion fish"),
}
