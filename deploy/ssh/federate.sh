#!/bin/bash
# Workers on hosts that are reached by SSH, and nothing else. See docs/deployment.md, "Hosts reached by SSH".
set -euo pipefail

usage() {
  cat << 'END'
federate.sh [--dry-run] up|status|down HOSTS WHEEL WORKER.toml COORDINATOR.toml

To be run on the coordinator's host, beside a coordinator that runs and has an enrolment port.

  up      install the wheel on every host, enrol it, check it, start its worker; again is no error
  status  say whether the workers run
  down    stop the workers

  HOSTS             a file with a line for each host: SSH destination, worker's name, its clients separated by commas.
                    Empty lines and lines that begin with # do not count. Port, user and jump host: ~/.ssh/config.
  WHEEL             ssd_federated-*.whl, from: python3 -m pip wheel --no-deps .
  WORKER.toml       configuration of every worker, with the coordinator's address and the data set as the hosts see them
  COORDINATOR.toml  of the coordinator, to make join tokens with

  --dry-run  only print what would be done

On each host everything lies in ~/ssd-worker: venv/, worker.toml, state/ (identity, finished updates), worker.log.
END
}

dry_run=
if [ "${1:-}" = --dry-run ]; then
  dry_run=yes
  shift
fi
case "${1:-}" in
  -h | --help)
    usage
    exit 0
    ;;
  up | status | down) ;;
  *)
    usage >&2
    exit 2
    ;;
esac
if [ $# -ne 5 ]; then
  usage >&2
  exit 2
fi
verb=$1 hosts=$2 wheel=$3 worker_config=$4 coordinator_config=$5
for file in "$hosts" "$wheel" "$worker_config" "$coordinator_config"; do
  if [ ! -r "$file" ]; then
    echo "federate.sh: $file cannot be read" >&2
    exit 2
  fi
done
wheel_name=$(basename "$wheel")
if ! [[ $wheel_name =~ ^[A-Za-z0-9._+-]+\.whl$ ]]; then
  echo "federate.sh: $wheel is no wheel" >&2
  exit 2
fi

# What is done here is said, then done. Standard input is the caller's.
step() {
  echo "  $ $*"
  [ -n "$dry_run" ] || "$@"
}

# The same on the host of this line. BatchMode: a password that is asked for would wait for ever.
there() {
  echo "  $host$ $1"
  [ -n "$dry_run" ] || ssh -o BatchMode=yes -- "$host" "$1"
}

# What follows runs in a shell of the other host: its tilde, its variables.
# shellcheck disable=SC2016,SC2088
running='pid=$(cat ~/ssd-worker/worker.pid 2> /dev/null) && grep -qs ssd-worker "/proc/$pid/cmdline"'
# shellcheck disable=SC2088
program='~/ssd-worker/venv/bin'

up() {
  local token='' missing=0
  # shellcheck disable=SC2016
  there 'mkdir -p -m 700 ~/ssd-worker && { [ -x ~/ssd-worker/venv/bin/pip ] || python3 -m venv ~/ssd-worker/venv; }' < /dev/null || return
  step scp -q -o BatchMode=yes -- "$wheel" "$host:ssd-worker/$wheel_name" < /dev/null || return
  step scp -q -o BatchMode=yes -- "$worker_config" "$host:ssd-worker/worker.toml" < /dev/null || return
  there "$program/pip install --quiet --upgrade \"\$HOME/ssd-worker/${wheel_name}[worker]\"" < /dev/null || return
  # 1 is the answer no. Anything else, as ssh's own 255, is none, and a token that nobody takes should not be made.
  there 'test -e ~/ssd-worker/state/identity/worker.pem' < /dev/null || missing=$?
  [ "$missing" -le 1 ] || return "$missing"
  if [ "$missing" -eq 1 ] || [ -n "$dry_run" ]; then
    echo "  $ ssd-coordinator ca token --worker $name --clients $clients --config $coordinator_config"
    if [ -z "$dry_run" ]; then
      token=$(ssd-coordinator ca token --worker "$name" --clients "$clients" --config "$coordinator_config") || return
    fi
    # The token goes through standard input: neither host's list of processes shows it.
    there "$program/ssd-worker enroll $place --identity-dir ~/ssd-worker/state/identity --token-file -" <<< "$token" || return
  fi
  there "$program/ssd-worker doctor --name $name $place $own" < /dev/null || return
  there "$running || { nohup setsid $program/ssd-worker run --name $name $place $own < /dev/null >> ~/ssd-worker/worker.log 2>&1 & echo \$! > ~/ssd-worker/worker.pid; }" < /dev/null
}

failed=0
# On descriptor 3: what runs in the loop must not read the list.
while read -r host name clients rest <&3 || [ -n "${host:-}" ]; do
  if [ -z "$host" ] || [ "${host:0:1}" = '#' ]; then
    continue
  fi
  if [ -n "$rest" ] || ! [[ $host =~ ^[A-Za-z0-9_][A-Za-z0-9_.@:-]*$ && $name =~ ^[A-Za-z0-9][A-Za-z0-9_.-]*$ && $clients =~ ^[A-Za-z0-9][A-Za-z0-9_.,-]*$ ]]; then
    echo "federate.sh: $hosts: not 'destination name client,client': $host $name $clients $rest" >&2
    exit 2
  fi
  echo "$name on $host"
  # shellcheck disable=SC2016,SC2088
  place='--config ~/ssd-worker/worker.toml --state-dir ~/ssd-worker/state'
  # shellcheck disable=SC2016
  own="--clients $clients --set transport.identity_dir="'$HOME/ssd-worker/state/identity'
  case $verb in
    up) up || failed=1 ;;
    status) there "if $running; then echo '  runs'; else echo '  does not run; the end of its log:'; tail -n 5 ~/ssd-worker/worker.log; fi" < /dev/null || failed=1 ;;
    down) there "if $running; then kill -TERM \"\$pid\"; else echo '  does not run'; fi" < /dev/null || failed=1 ;;
  esac
done 3< "$hosts"
if [ "$failed" -ne 0 ]; then
  echo "federate.sh: not every host is done: see above; doing it again is no error" >&2
fi
exit "$failed"
