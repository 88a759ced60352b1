#!/bin/sh
# AE-Adapt-V against all that one could do instead, in the shapes world: from scratch, direct fine-tuning, a frozen model
# with random ends, the paper's stages by SGD, closed form and LoRA, and four changes to that. Stop it with Ctrl-C at any
# time; the same line goes on and skips what is done. Start it twice, in two terminals, and both share the pieces.
# Its arguments after the first go to the study: `runs/adaptation_study.sh out/adaptation_study --plan` tells the hours.
set -eu
BASE=${DCVIDEOGEN_SHAPES_BASE:-src/dcvideogen/weights/shapes-base}
DCAE=${DCVIDEOGEN_SHAPES_DCAE:-src/dcvideogen/weights/shapes-dcae}
OUT=${1:-out/adaptation_study}
[ $# -eq 0 ] || shift
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE ONEDNN_MAX_CPU_ISA=AVX512_CORE_FP16
dcvideogen shapes render -o "$OUT/clips" --clips 2000
python benchmarks/adaptation_study.py --base "$BASE" --autoencoder "$DCAE" --clips "$OUT/clips/manifest.jsonl" \
    -o "$OUT" --sweep 5e-4 1e-3 2e-3 4e-3 --report benchmarks/results/adaptation_cpu "$@"
