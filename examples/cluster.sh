#!/usr/bin/env bash
# A Ray head of its own on this machine, to try `ray job submit` on. Who talks to it needs its token.
#
#   eval "$(examples/cluster.sh start)"     # prints the variables that a client needs
#   ray job submit --working-dir . -- python -m jobs run INPUT OUTPUT --rate 0.5
#   examples/cluster.sh stop
#
# INFOTOK_CLUSTER  folder of its state          (default /tmp/infotok-cluster-UID; keep it short)
# INFOTOK_PORTS    first of six ports to use    (default 8265, the dashboard's)
# VENV             environment with infotok     (default .venv beside this folder)
set -euo pipefail

state=${INFOTOK_CLUSTER:-/tmp/infotok-cluster-$(id -u)}
first=${INFOTOK_PORTS:-8265}
venv=${VENV:-$(cd "$(dirname "$0")/.." && pwd)/.venv}

start() {
  [[ -e $state/pid ]] && { echo "$state/pid exists: stop that cluster first" >&2; exit 1; }
  mkdir -p "$state"
  # A token of its own: a head and its clients must agree, and ~/.ray/auth_token may come or go.
  (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$state/token")
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$state/token RAY_USAGE_STATS_ENABLED=0
  # `ray job stop` sends SIGKILL after 3 s, while a run still says goodbye. (It could be resumed.)
  export RAY_JOB_STOP_WAIT_TIME_S=30
  # The `python` of a submitted command is found on this path.
  export PATH=$venv/bin:$PATH
  unset RAY_ADDRESS
  setsid ray start --head --block --disable-usage-stats --temp-dir="$state/ray" \
    --dashboard-host=127.0.0.1 --dashboard-port="$first" --port=$((first + 1)) \
    --dashboard-agent-listen-port=$((first + 2)) --dashboard-agent-grpc-port=$((first + 3)) \
    --metrics-export-port=$((first + 4)) \
    --ray-client-server-port=$((first + 5)) --min-worker-port=0 --max-worker-port=0 "$@" \
    >"$state/head.log" 2>&1 </dev/null &
  echo $! >"$state/pid"
  for ((tries = 0; tries < 240; tries++)); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$((first + 2))") 2>/dev/null; then
      echo "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$state/token"
      echo "export RAY_API_SERVER_ADDRESS=http://127.0.0.1:$first"
      echo "export PATH=$venv/bin:\$PATH"
      return
    fi
    kill -0 "$(cat "$state/pid")" 2>/dev/null || break
    sleep 0.5
  done
  echo "Ray did not start:" >&2
  tail -n 20 "$state/head.log" >&2
  stop
  exit 1
}

stop() {
  [[ -e $state/pid ]] || return 0
  # Everything the head started is in its session, and nothing else is.
  local pid
  pid=$(cat "$state/pid")
  pkill -TERM -s "$pid" || true
  for ((tries = 0; tries < 20; tries++)); do
    pgrep -s "$pid" >/dev/null || break
    sleep 0.25
  done
  pkill -KILL -s "$pid" || true
  rm -rf "$state"
}

case ${1:-} in
  start) start "${@:2}" ;;
  stop) stop ;;
  *) sed -n '2,11p' "$0"; exit 2 ;;
esac
