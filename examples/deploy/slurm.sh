#!/usr/bin/env bash
# A Ray cluster in a Slurm allocation, and one run on it. What does not fit into the time limit goes on
# in the next allocation, which the job asks for itself.
#
#   sbatch examples/deploy/slurm.sh INPUT OUTPUT [OPTIONS of `infotok run`]
#
# `infotok` and `ray` are on the PATH, the folder it is submitted from is seen by every node.
# RAY_START_OPTIONS  further options of every `ray start`
#SBATCH --job-name=infotok
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --time=08:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
on() { srun --nodes=1 --ntasks=1 --nodelist="$1" --cpu-bind=none "${@:2}"; }
read -r address _ < <(on "${nodes[0]}" hostname --ip-address)
# Two jobs may share a node.
export RAY_ADDRESS=$address:$((20000 + SLURM_JOB_ID % 10000))

# Who joins or drives the cluster has to know this.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=${SLURM_SUBMIT_DIR:-$PWD}/.ray-token-$SLURM_JOB_ID
(umask 077 && od -An -tx1 -N32 /dev/urandom | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")

steps=()
start() {
  # shellcheck disable=SC2086  # several options
  on "$1" ray start --block --disable-usage-stats ${RAY_START_OPTIONS:-} "${@:2}" &
  steps+=($!)
}
finish() {
  kill -TERM "${steps[@]}" 2>/dev/null || true
  wait "${steps[@]}" 2>/dev/null || true
  rm -f "$RAY_AUTH_TOKEN_PATH"
}
trap finish EXIT

start "${nodes[0]}" --head --node-ip-address="$address" --port="${RAY_ADDRESS##*:}" \
  --temp-dir="/tmp/ray-$SLURM_JOB_ID"
there() { ray status 2>/dev/null | grep -c ' node_' || true; }
until (($(there) >= 1)); do
  kill -0 "${steps[0]}"
  sleep 1
done
for node in "${nodes[@]:1}"; do start "$node" --address="$RAY_ADDRESS"; done
# A run counts GPUs when it begins.
for ((tries = 0; tries < 120 && $(there) < ${#nodes[@]}; tries++)); do sleep 1; done
echo "Ray at $RAY_ADDRESS: $(there) of ${#nodes[@]} nodes" >&2

infotok run "$@" &
run=$!
trap 'kill -TERM "$run" 2>/dev/null || true' TERM
# A signal ends `wait`, not the run.
status=0
wait "$run" || status=$?
while kill -0 "$run" 2>/dev/null; do
  status=0
  wait "$run" || status=$?
done
if ((status == 143)); then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
