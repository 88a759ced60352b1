"""Small real videos and pictures for the page's test server, drawn in code: a shape that moves."""

from __future__ import annotations

import functools
import io
import math
import re

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

COLOURS = {"red": "#e5484d", "blue": "#3e7bfa", "green": "#30a46c", "yellow": "#f5d90a", "purple": "#8e4ec6"}


def frame(prompt: str, width: int, height: int, at: float) -> Image.Image:
    """What `prompt` names, at a time from 0 to 1."""
    word = re.search("|".join(COLOURS), prompt)
    colour = COLOURS[word[0]] if word else "#e6ece9"
    picture = Image.new("RGB", (4 * width, 4 * height), "#27333f" if "night" in prompt else "#cfd6d1")
    draw, radius = ImageDraw.Draw(picture), height * 0.9
    x = 4 * width * (0.2 + 0.6 * at)
    y = 2 * height + height * 0.8 * math.sin(4 * math.pi * at)
    corners = (x - radius, y - radius, x + radius, y + radius)
    if "square" in prompt:
        draw.rectangle(corners, fill=colour)
    elif "triangle" in prompt:
        draw.regular_polygon((x, y, radius), 3, fill=colour)
    else:
        draw.ellipse(corners, fill=colour)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


@functools.cache
def film(prompt: str, width: int, height: int, num_frames: int, fps: float, *, beside: bool = False) -> bytes:
    """H.264 in mp4; beside: twice as wide, with a blurred copy on the right."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=round(fps))
        stream.width, stream.height, stream.pix_fmt = width * (2 if beside else 1), height, "yuv420p"
        stream.codec_context.thread_count = 1
        for index in range(num_frames):
            picture = np.asarray(frame(prompt, width, height, index / max(1, num_frames - 1)))
            if beside:
                blurred = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(height / 24))
                picture = np.concatenate([picture, np.asarray(blurred)], axis=1)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file.getvalue()


@functools.cache
def preview(prompt: str, width: int, height: int, sharpness: int) -> bytes:
    """WebP, the sharper the further the job is: 1 to 4."""
    file = io.BytesIO()
    blurred = frame(prompt, width, height, 0.5).filter(ImageFilter.GaussianBlur(height / 8 / sharpness))
    blurred.save(file, "WEBP")
    return file.getvalue()
