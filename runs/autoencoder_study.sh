#!/bin/sh
# What the link through time gives: causal, chunk-causal (chunks of 4, 8, 16, 24) and non-causal autoencoders with equal
# weights, data and steps, on clips of several chunks; tested at 1, 2 and 5 times the training length. Stop it with
# Ctrl-C at any time; the same line goes on and skips what is done. About 3 minutes for each of the 12 runs on one core.
set -eu
DATA=${DCVIDEOGEN_DATA:-data}  # the folder that holds the clips, at any depth
OUT=${1:-out/autoencoder_study}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
python benchmarks/autoencoder_study.py --data "$DATA" -o "$OUT" \
    --report benchmarks/results/autoencoder_study_cpu --plots docs/images
# On a GPU: longer clips, the paper's chunk of 40 frames, a random start and enough steps for it. Clips of 160 frames
# and more; tests at 5 times the length need clips of 800 (--slow and --fast name others):
#   python benchmarks/autoencoder_study.py --data "$DATA" -o "$OUT-gpu" --chunks 8 24 40 --num-frames 160 --size 128 \
#       --start random --steps 20000 --batch-size 8 --precision bf16 --training NAME... --slow NAME... --fast NAME... \
#       --report benchmarks/results/autoencoder_study_gpu --hardware "the GPU's name"
