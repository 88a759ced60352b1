#!/bin/sh
# The bundled autoencoder, dcae-small-f32t4c128: from the clips of its card to the folder in src/dcvideogen/weights.
# Stop with Ctrl-C at any time; the same line goes on. Half an hour to an hour on two CPU cores.
set -eu
DATA=${DCVIDEOGEN_DATA:-data}  # the folder that holds the clips and photographs, at any depth
OUT=${1:-out/dcae-small}
# Idle threads that spin cost more than half the speed when other programs use the cores too.
export OMP_WAIT_POLICY=PASSIVE
dcvideogen train-autoencoder dcae-small-f32t4c128-bundled --data "$DATA" -o "$OUT"
# On videos of your own, from the bundled weights:
#   dcvideogen train-autoencoder dcae-small-f32t4c128 --data FOLDER -o OUT
