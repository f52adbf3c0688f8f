"""From a coordinator's configuration to a policy that workers accept, with the commands an operator types."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coordinator.cli.main import cli as coordinator
from coordinator.errors import OperatorFault
from ssd.trust.policy.federation_policy import decode

Run = Callable[..., Result]
CONFIG = """
[transport]
insecure = true
[run]
rounds = 7
[method]
name = "synthetic"
[method.config]
parameters = 64
[secure_aggregation]
level = "passive"
max_client_weight = 32
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    Path("coordinator.toml").write_text(CONFIG)

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(coordinator, ["policy", *map(str, arguments)])

    return call


def test_the_whole_way(run: Run) -> None:
    signer = CliRunner().invoke(coordinator, ["registry", "keygen", "--out", "signer.key"]).stdout.strip()
    drafted = run("draft", "policy.draft", "--federation", "lab", "--config", "coordinator.toml")
    assert drafted.exit_code == 0, (drafted.output, drafted.exception)
    body = json.loads(Path("policy.draft").read_text())
    (method,) = body["methods"]
    assert (method["name"], method["settings"]["parameters"]) == ("synthetic", [64])
    assert (body["max_rounds"], body["max_client_weight"]) == (7, 32)
    # Read and widened by hand, in any spelling of JSON.
    method["settings"]["scale"] = {"min": 0.001, "max": 0.1}
    Path("policy.draft").write_text(json.dumps(body, indent=4))
    for version in (1, 2):
        signed = run("sign", "policy.draft", "--key", "signer.key", "--out", "policy.json")
        assert f"version {version}, signed by {signer}" in signed.output, signed.exception
    found = decode(Path("policy.json").read_bytes(), signer, "lab")
    assert found.version == 2
    assert found.methods[0].outside({**body_config(method), "scale": 0.05}) == ""
    good = run("verify", "policy.json", "--signer", signer, "--federation", "lab")
    assert "good: version 2" in good.output
    assert "rounds: at most 7" in good.output


def body_config(method: dict[str, dict[str, list[object]]]) -> dict[str, object]:
    """A configuration of the values that the draft listed."""
    return {name: accepted[0] for name, accepted in method["settings"].items() if isinstance(accepted, list)}


def test_what_cannot_be_signed_or_drafted_over(run: Run) -> None:
    CliRunner().invoke(coordinator, ["registry", "keygen", "--out", "signer.key"])
    for content in ("{", "[]", '{"format": 1}'):
        Path("policy.draft").write_text(content)
        refused = run("sign", "policy.draft", "--key", "signer.key", "--out", "policy.json")
        assert isinstance(refused.exception, OperatorFault)
        assert not Path("policy.json").exists()
    again = run("draft", "policy.draft", "--federation", "lab", "--config", "coordinator.toml")
    assert isinstance(again.exception, OperatorFault)
    assert "is there already" in str(again.exception)
    Path("policy.json").write_text("{}")
    unsigned = run("verify", "policy.json", "--signer", "ab" * 32, "--federation", "lab")
    assert isinstance(unsigned.exception, OperatorFault)
