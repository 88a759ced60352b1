#!/bin/sh
# The shapes world's models, from nothing: base, deep compression autoencoder, adapted transformer. For two CPU cores; every
# line goes on where it was stopped, so a machine that must be given back after a while can run the file again.
#   sh runs/shapes.sh OUT
set -e
OUT=${1:-outputs/shapes}

# 3000 captioned clips; one index for all that read them (a fifth of the clips stand still, as their captions say).
dcvideogen shapes render -o "$OUT/clips" --clips 3000
dcvideogen data check "$OUT/clips/manifest.jsonl" --max-static-share 1

# A genuine base model in diffusers' own classes: text encoder, AutoencoderKLWan, WanTransformer3DModel.
dcvideogen shapes train-base shapes-base --clips "$OUT/clips/manifest.jsonl" -o "$OUT/base"

# The autoencoder to move to.
dcvideogen train-autoencoder dcae-shapes-f32t4c32 --data "$OUT/clips/manifest.jsonl" -o "$OUT/dcae"

# The move.
dcvideogen adapt shapes-dc -o "$OUT/dc" \
  --set base="$OUT/base/pipeline" --set autoencoder="$OUT/dcae/model" --set cache.source="$OUT/clips/manifest.jsonl"
