#!/bin/sh
# The published sizes (2.1 billion parameters) on several machines with several GPUs each; see docs/distributed.md.
# Run this file on every machine. The same lines go on after a stop, on any number of machines.
set -eu
DATA=${DCVIDEOGEN_DATA:-data}         # videos, images, a manifest or tar shards, readable from all machines
OUT=${1:-out/f32t4c32}                # on a disk that all machines share: checkpoints are read from there
NODES=${NODES:-2}                     # machines
GPUS=${GPUS:-8}                       # processes on each, one per GPU
HEAD=${HEAD:-node0:29500}             # one of the machines, and a free port on it
# Check the data once, not on every machine: dcvideogen data check "$DATA"
# What it will cost, without training: dcvideogen train-autoencoder f32t4c32 --data "$DATA" -o "$OUT" --plan
torchrun --nnodes "$NODES" --nproc-per-node "$GPUS" --rdzv-backend c10d --rdzv-endpoint "$HEAD" --rdzv-id dcvideogen --no-python dcvideogen train-autoencoder f32t4c32 --data "$DATA" -o "$OUT"
# The same on one machine:
#   torchrun --standalone --nproc-per-node "$GPUS" --no-python dcvideogen train-autoencoder f32t4c32 --data "$DATA" -o "$OUT"
# The same on the two cores of a laptop, to see it work, with the tour of all stages:
#   OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 --no-python dcvideogen train-autoencoder dcae-tiny-f32t4c16 --data "$DATA" -o out/tour --set stages.1.batches.0.batch_size=2 --set stages.2.batches.0.batch_size=2
