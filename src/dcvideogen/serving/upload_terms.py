"""What the server and the process that reads uploads agree on. Light: that process starts for every upload."""

from __future__ import annotations

# Files in the folder of one reading.
UPLOAD, RESULT = "upload", "result.json"
# What is written anew; also of the upload and of the job's copy afterwards.
PICTURE, CLIP = "picture.png", "clip.mp4"

UNSUPPORTED, DAMAGED, TOO_LARGE, TOO_EXPENSIVE = "unsupported", "damaged", "too_large", "too_expensive"


class Refused(Exception):
    """code: one of the four above. The message says in half a sentence what came, and is shown to the client."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
