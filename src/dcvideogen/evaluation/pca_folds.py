"""Which clips the PCA of a clip is fitted on, and the fit when it is needed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

import numpy as np

from dcvideogen.errors import UserError
from dcvideogen.evaluation.clip_evaluation import Clip
from dcvideogen.evaluation.pca_baseline import MAX_BLOCKS, PcaSubject, fold_of, sample_clip

log = logging.getLogger(__name__)


class PcaFolds:
    """A PCA per clip, never fitted on the clip itself.

    On `data` where it is given, without what is evaluated too; else on the other clips of the evaluation (each one left
    out alone for up to 8 clips, else an eighth of them). `fitted_on`: that in words.
    """

    def __init__(self, clips: Sequence[Clip], data: Sequence[Clip] = ()) -> None:
        evaluated = {clip.identity for clip in clips}
        self._given = [clip for clip in data if clip.identity not in evaluated]
        self._clips, self._from_data = list(clips), bool(data)
        self._samples: dict[str, np.ndarray | None] = {}
        self._last: tuple[str, PcaSubject] | None = None
        self.fitted_on = "clips of its own" if data else "the other clips"

    def reason(self, index: int) -> str | None:
        """Why there is no PCA for the clip of this index."""
        if self._sources(index):
            return None
        return "nothing to fit on but the evaluated clips" if self._from_data else "one clip: give --pca-data"

    def key(self, index: int) -> str:
        """Changes with what the PCA of a clip is fitted on."""
        text = " ".join(clip.identity for clip in self._sources(index))
        return f"pca {hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def subject(self, index: int) -> PcaSubject:
        """Fits, or gives back the last fit. Raises UserError when none of the clips to fit on can be read."""
        key = self.key(index)
        if self._last is None or self._last[0] != key:
            sources = self._sources(index)
            most = -(-MAX_BLOCKS // len(sources))
            samples = [sample for clip in sources if (sample := self._sample(clip, most)) is not None]
            blocks = np.concatenate(samples) if samples else np.zeros((0, 1))
            if len(blocks) < 2:
                raise UserError(
                    f"the PCA has {len(blocks)} blocks to be fitted on; 2 or more are needed; give --pca-data"
                )
            self._last = (key, PcaSubject(blocks))
        return self._last[1]

    def _sources(self, index: int) -> list[Clip]:
        if self._from_data:
            return self._given
        total = len(self._clips)
        own = fold_of(index, total)
        return [clip for other, clip in enumerate(self._clips) if fold_of(other, total) != own]

    def _sample(self, clip: Clip, most: int) -> np.ndarray | None:
        """Blocks of a clip, remembered; None for one that cannot be read, which is told where it is evaluated."""
        name = f"{clip.identity} {most}"
        if name not in self._samples:
            try:
                self._samples[name] = sample_clip(clip.frames(), most)
            except (UserError, OSError) as error:
                if self._from_data:
                    log.warning("PCA: left out: %s", error)
                self._samples[name] = None
        return self._samples[name]
