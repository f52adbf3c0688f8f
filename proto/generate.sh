#!/usr/bin/env bash
# Regenerates the Python modules beside the .proto files. With --check, only says whether they are current.
set -euo pipefail
cd "$(dirname "$0")"
python="${PYTHON:-python3}"
out=.
if [ "${1:-}" = "--check" ]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
fi
"$python" -m grpc_tools.protoc --proto_path=. --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" ssd_proto/v1/*.proto
# Files without a service need no gRPC module.
rm -f "$out"/ssd_proto/v1/tensor_pb2_grpc.py
if [ "$out" != . ]; then
  for generated in "$out"/ssd_proto/v1/*; do
    if ! cmp -s "$generated" "ssd_proto/v1/$(basename "$generated")"; then
      echo "generated code is out of date: proto/ssd_proto/v1/$(basename "$generated"); run 'make proto'" >&2
      exit 1
    fi
  done
fi
