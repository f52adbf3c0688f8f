"""What an operator's Prometheus reads is valid, and each alert fires on its fault and not before (promtool's own tests)."""

from __future__ import annotations

import subprocess

from processes.prometheus_server import DEPLOY, program


def promtool(*arguments: str) -> None:
    done = subprocess.run([program("promtool"), *arguments], cwd=DEPLOY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_configuration_and_rules_are_valid() -> None:
    # Debian's build knows no Kubernetes discovery, so only the other configuration can be checked with it.
    promtool("check", "config", "prometheus.yml")


def test_every_alert_fires_on_its_fault_and_a_healthy_hour_is_quiet() -> None:
    promtool("test", "rules", "tests/alerts.yml")
