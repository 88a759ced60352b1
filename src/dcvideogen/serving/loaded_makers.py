"""The models that one device keeps loaded: those used last, so that a base can stand beside what was made of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import torch

from dcvideogen.autoencoder.loading import usual_dtype
from dcvideogen.pipelines.decoding import is_out_of_memory
from dcvideogen.serving.makers import Maker, free_memory, load_maker
from dcvideogen.serving.settings import ServedModel

KEPT_MODELS = 2  # loaded at once


class Makers(Protocol):
    """names: of the models. device: where they run, in words for the operator."""

    names: Sequence[str]
    device: str

    def get(self, name: str) -> Maker: ...

    def drop(self, name: str) -> None:
        """Forgets what is loaded of a model that failed: who knows what state it is in."""


class LoadedMakers:
    """Loads a model when it is first asked for. dtype None: the device's usual one."""

    def __init__(self, models: Sequence[ServedModel], device: torch.device, dtype: torch.dtype | None) -> None:
        self._models = {model.name: model for model in models}
        self._device, self._dtype = device, dtype or usual_dtype(device)
        self._loaded: OrderedDict[str, Maker] = OrderedDict()
        self.names, self.device = tuple(self._models), str(device)

    def get(self, name: str) -> Maker:
        """Loaded, and of the others only the one used last. UserError: it cannot be loaded."""
        if name in self._loaded:
            self._loaded.move_to_end(name)
            return self._loaded[name]
        while len(self._loaded) >= KEPT_MODELS:
            self._loaded.popitem(last=False)
            free_memory()
        try:
            maker = self._load(name)
        except RuntimeError as error:
            if not self._loaded or not is_out_of_memory(error):
                raise
            self._loaded.clear()
            free_memory()
            maker = self._load(name)
        self._loaded[name] = maker
        return maker

    def drop(self, name: str) -> None:
        self._loaded.pop(name, None)

    def _load(self, name: str) -> Maker:
        return load_maker(self._models[name], self._device, self._dtype)
