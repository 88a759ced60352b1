#!/bin/sh
# Wan 2.1 text to video, 1.3B, in the latents of DC-AE-V f32t4c32, with the paper's settings: from published weights and
# captioned videos to a transformer, an adapter and LoRA files. Stop it with Ctrl-C at any time; the same lines go on.
# The batches are for 8 GPUs with one clip at once each; fewer GPUs want a larger train.accumulate.
set -eu
DATA=${DCVIDEOGEN_DATA:-data/manifest.jsonl}   # clips with captions, 80 frames at 16 per second and 480 lines or more
MODELS=${MODELS:-models}                       # published weights, and those made from them
OUT=${1:-out/wan2.1-t2v-1.3b}
GPUS=${GPUS:-8}
# By hand, from the Hugging Face hub: Wan-AI/Wan2.1-T2V-1.3B-Diffusers as $MODELS/Wan2.1-T2V-1.3B-Diffusers, and
# dc-ae-v-f32t4c32-1.0-bf16.pt of dc-ai/DC-Gen-Wan2.1-T2V-14B into $MODELS.
[ -d "$MODELS/f32t4c32" ] || dcvideogen convert "$MODELS/dc-ae-v-f32t4c32-1.0-bf16.pt" -o "$MODELS/f32t4c32"
# Which files cannot be used, and why; once, and not by every process.
[ -d "$DATA.index" ] || dcvideogen data check "$DATA"
# What everything takes: tokens, parameters, memory, operations, hours at the speed of this device. Runs nothing.
dcvideogen adapt wan2.1-t2v-1.3b -o "$OUT" --plan --set base="$MODELS/Wan2.1-T2V-1.3B-Diffusers" --set autoencoder="$MODELS/f32t4c32" --set cache.source="$DATA"
# The closed form runs on one process, as does the export; each stage is skipped when it is done.
torchrun --standalone --nproc-per-node "$GPUS" --no-python dcvideogen adapt wan2.1-t2v-1.3b -o "$OUT" --set base="$MODELS/Wan2.1-T2V-1.3B-Diffusers" --set autoencoder="$MODELS/f32t4c32" --set cache.source="$DATA"
# Only as far as 480p, on one GPU with 8 clips at once: the same with
#   --stage cache, then align, head and lora, and --set stages.lora.train.accumulate=4
# The paper's own way to both ends, 20,000 and 6,000 steps of gradient descent, to compare with (the cache is shared):
#   mkdir -p "$OUT-paper" && cp -r "$OUT/cache" "$OUT-paper/cache"
#   ... adapt wan2.1-t2v-1.3b-paper -o "$OUT-paper", all else as above
# Tokens counted on the base model's grid instead of by integers:
#   dcvideogen adapt wan2.1-t2v-1.3b -o "$OUT-base-grid" --set positions=base_grid ...
