#!/bin/sh
# What an adapted image-to-video model loses of its image in the shapes world, and what could give it back: a small base
# that begins with a picture is trained, moved in five ways, and all are scored. Stop it with Ctrl-C at any time; the same
# line goes on and skips what is done. Start it twice, in two terminals, once the base is there, and both share the pieces.
# Its arguments after the first go to the study: `runs/image_to_video_study.sh out/image_to_video --plan` tells the hours.
set -eu
DCAE=${DCVIDEOGEN_SHAPES_DCAE:-src/dcvideogen/weights/shapes-dcae}
OUT=${1:-out/image_to_video_study}
[ $# -eq 0 ] || shift
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE ONEDNN_MAX_CPU_ISA=AVX512_CORE_FP16
dcvideogen shapes render -o "$OUT/clips" --clips 2000
BASE=${DCVIDEOGEN_SHAPES_I2V_BASE:-$OUT/base/pipeline}
[ -d "$BASE" ] || dcvideogen shapes train-base shapes-i2v-base --clips "$OUT/clips/manifest.jsonl" -o "$OUT/base"
python benchmarks/image_to_video_study.py --base "$BASE" --autoencoder "$DCAE" --clips "$OUT/clips/manifest.jsonl" \
    -o "$OUT" --report benchmarks/results/image_to_video_cpu "$@"
