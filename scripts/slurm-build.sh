#!/usr/bin/env bash
#SBATCH --job-name=patchgen
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=04:00:00
# Build a patch set with a job array: each job builds some shards. A last job without --array finishes the set:
#   sbatch --array=0-15 scripts/slurm-build.sh PHOTO N FOLDER
#   sbatch --dependency=afterany:JOB scripts/slurm-build.sh PHOTO N FOLDER
# All nodes must see FOLDER under this path. Run failed jobs again, or let the last job build their shards.
set -euo pipefail
photo=$1 n=$2 folder=$3
shard_size=20000 # the default for patches of 32 px
shards=$(( (n + shard_size - 1) / shard_size ))
build=(patchgen build --image "$photo" --n "$n" --shard-size "$shard_size" --out "$folder" --workers "${SLURM_CPUS_PER_TASK:-1}")
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
  each=$(( (shards + SLURM_ARRAY_TASK_COUNT - 1) / SLURM_ARRAY_TASK_COUNT ))
  first=$(( (SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN) * each ))
  if [ "$first" -lt "$shards" ]; then
    "${build[@]}" --shards "$first-$(( first + each - 1 ))"
  fi
else
  "${build[@]}"
fi
