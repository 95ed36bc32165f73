#!/bin/bash
# A training on several machines under Slurm, one worker a node, with the same files on all nodes:
#
#   sbatch configs/cluster/slurm.sh configs/mask_rcnn_resnet50_fpn_coco.yaml --out /shared/runs/coco
#
# When a worker is lost all are ended and started again, and go on from the last checkpoint.
#SBATCH --job-name=rcnn-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
set -eu

port=2222
hosts=""
for host in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
  hosts="$hosts${hosts:+, }\"$host:$port\""
done
export RCNN_CLUSTER="{\"worker\": [$hosts]}"

# Each task composes the variable with its own number.
# shellcheck disable=SC2016
worker='
  task="{\"type\": \"worker\", \"index\": $SLURM_PROCID}"
  export TF_CONFIG="{\"cluster\": $RCNN_CLUSTER, \"task\": $task}"
  exec rcnn train "$@"
'
for attempt in 1 2 3 4; do
  status=0
  srun --kill-on-bad-exit=1 bash -ec "$worker" worker "$@" || status=$?
  # 75: a worker lost another; above 128: one was killed. Anything else would happen again.
  if [ "$status" -ne 75 ] && [ "$status" -le 128 ]; then
    break
  fi
  echo "start $attempt ended with status $status" >&2
done
exit "$status"
