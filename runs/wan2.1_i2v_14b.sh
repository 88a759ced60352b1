#!/bin/sh
# Wan 2.1 image to video, 14B, in the latents of DC-AE-V f32t4c32, with the paper's settings.
# FSDP2 shares weights and optimiser out. Stop it with Ctrl-C at any time; the same lines go on.
set -eu
DATA=${DCVIDEOGEN_DATA:-data/manifest.jsonl}   # clips with captions, 80 frames at 16 per second and 480 lines or more
MODELS=${MODELS:-models}                       # published weights, and those made from them
OUT=${1:-out/wan2.1-i2v-14b}                # on a disk that all machines share
GPUS=${GPUS:-8}
# By hand, from the Hugging Face hub: Wan-AI/Wan2.1-I2V-14B-720P-Diffusers as $MODELS/Wan2.1-I2V-14B-720P-Diffusers, and
# dc-ae-v-f32t4c32-1.0-bf16.pt of dc-ai/DC-Gen-Wan2.1-I2V-14B into $MODELS.
[ -d "$MODELS/f32t4c32" ] || dcvideogen convert "$MODELS/dc-ae-v-f32t4c32-1.0-bf16.pt" -o "$MODELS/f32t4c32"
# Which files cannot be used, and why; once, and not by every process.
[ -d "$DATA.index" ] || dcvideogen data check "$DATA"
# What everything takes: tokens, parameters, memory, operations, hours at the speed of this device. Runs nothing.
dcvideogen adapt wan2.1-i2v-14b -o "$OUT" --plan --set base="$MODELS/Wan2.1-I2V-14B-720P-Diffusers" --set autoencoder="$MODELS/f32t4c32" --set cache.source="$DATA"
# The cache also holds the latents and the CLIP tokens of every first frame, which are the model's condition.
# 8,000 steps at 480p, then 1,000, 500 and 200 at 720p, 1080p and 2160p, each on a cache of its own.
torchrun --standalone --nproc-per-node "$GPUS" --no-python dcvideogen adapt wan2.1-i2v-14b -o "$OUT" --set base="$MODELS/Wan2.1-I2V-14B-720P-Diffusers" --set autoencoder="$MODELS/f32t4c32" --set cache.source="$DATA"
# Only as far as 720p:
#   ... adapt wan2.1-i2v-14b -o "$OUT" --stage cache, then align, head, lora, cache-720p and 720p
# A LoRA of the authors' later code, without cross-attention:
#   ... adapt wan2.1-i2v-14b -o "$OUT-self" --set lora.targets=self_attention+ffn+time
