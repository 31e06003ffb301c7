"""A worker in a Ray cluster: loads the models it is asked for, checks that they are the right ones, and runs them."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from persona_probe.activations.capturing import capture, capture_together
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError
from persona_probe.models.loading.adapters import with_adapter
from persona_probe.models.loading.load import load_spec, resolve_dtype, target_device
from persona_probe.models.loading.spec import ModelSpec
from persona_probe.models.model import Model
from persona_probe.study.executor import AnswerJob


@dataclass(frozen=True)
class Wanted:
    """What a worker needs to load a model, and to check that it got the right one."""

    spec: ModelSpec
    fingerprint: str
    template_hash: str | None

    @classmethod
    def of(cls, model: Model) -> Wanted:
        """What workers need for ``model``; a model that they cannot load, or that is being steered here, is refused."""
        if model.spec is None:
            raise PersonaProbeError(
                f"{model.name}: was not loaded from a folder or the Hub, so Ray workers cannot load it; save it with "
                "model.hf.save_pretrained and model.tokenizer.save_pretrained, and load that folder with pp.load"
            )
        if model.spec.options.get("device_map") is not None:
            raise PersonaProbeError(
                f"{model.name}: is spread over several devices (device_map=), but a Ray worker has one GPU; load it "
                "with device= or quantize="
            )
        if model.steered:
            raise PersonaProbeError(
                f"{model.name}: is being steered here, which Ray workers would not know of; capture outside of the "
                "context, or sample with AnswerJob(steering=...)"
            )
        return cls(_portable(model, model.spec), model.fingerprint(), model.template.hash())

    @classmethod
    def of_all(cls, models: Sequence[Model]) -> dict[int, Wanted]:
        """``of`` for several models, by ``id``; each distinct model is hashed once."""
        return {key: cls.of(model) for key, model in {id(model): model for model in models}.items()}


def _portable(model: Model, spec: ModelSpec) -> ModelSpec:
    """``spec`` for another process: with full paths, for any GPU, and independent of that process's environment."""
    options = spec.options.copy()
    options["dtype"] = resolve_dtype(options.get("dtype"), target_device(options))
    options["today"] = model.template.written_date
    if isinstance(text := getattr(model.tokenizer, "chat_template", None), str):
        options["chat_template"] = text
    if (tokenizer := options.get("tokenizer")) is not None:
        options["tokenizer"] = _full(str(tokenizer))
    if (device := options.get("device")) is not None and torch.device(device).type == "cuda":
        options["device"] = "cuda"
    adapter = None if spec.adapter is None else _full(spec.adapter)
    return replace(spec, source=_full(spec.source), adapter=adapter, options=options)


def _full(path: str) -> str:
    """The full path of a local folder; a Hub id is not changed."""
    return os.path.realpath(path) if os.path.isdir(path) else path  # noqa: PTH112


class Worker:
    """A Ray actor, which holds the weights that its last call needed, and the adapters that it has put on them."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._bases: list[tuple[ModelSpec, Model]] = []
        self._held: list[tuple[Wanted, Model]] = []

    def ready(self) -> None:
        """Return as soon as the worker has started."""

    def capture(self, wanted: Wanted, dialogues: Sequence[Dialogue], options: dict[str, Any]) -> bytes:
        """The pickled result of `capture` on this worker."""
        (model,) = self._models([wanted])
        return _packed(capture(model, dialogues, **options))

    def capture_together(
        self, wanted: Sequence[Wanted], dialogues: Sequence[Dialogue], options: dict[str, Any]
    ) -> bytes:
        """The pickled result of `capture_together` on this worker."""
        return _packed(capture_together(self._models(wanted), dialogues, **options))

    def answer(self, wanted: Wanted, rest: dict[str, Any]) -> bytes:
        """The pickled answers of an `AnswerJob` that is run on this worker."""
        (model,) = self._models([wanted])
        return _packed(AnswerJob(model, **rest).run())

    def _models(self, wanted: Sequence[Wanted]) -> list[Model]:
        """The models of one call, after dropping the weights that it does not need."""
        needed = [_base_of(one.spec) for one in wanted]
        for base in [known for known, _ in self._bases if known not in needed]:
            self._forget(base)
        return [self._model(one) for one in wanted]

    def _model(self, wanted: Wanted) -> Model:
        if (ready := next((model for held, model in self._held if held == wanted), None)) is not None:
            return ready
        base = _base_of(wanted.spec)
        again = any(known == base for known, _ in self._bases)
        model, differs = self._loaded(wanted)
        if differs and again:
            # The base's folder may have been rewritten in the meantime.
            del model
            self._forget(base)
            model, differs = self._loaded(wanted)
        if differs:
            raise PersonaProbeError(
                f"{wanted.spec.name}: the Ray worker on {socket.gethostname()} loaded {differs}. The folder must "
                "be the same on every machine of the cluster, and the model unchanged since it was loaded; merged and "
                "quantised weights are rounded differently on a CPU and on a GPU, so load them here on the kind of "
                "device that workers have"
            )
        self._held = [(held, other) for held, other in self._held if held.spec != wanted.spec]
        self._held.append((wanted, model))
        return model

    def _loaded(self, wanted: Wanted) -> tuple[Model, str]:
        """The model, and in words how it differs from the wanted one."""
        try:
            model = self._load(wanted.spec)
        except PersonaProbeError as error:
            raise PersonaProbeError(f"on the Ray worker on {socket.gethostname()}: {error}") from error
        for what, seen, expected in (
            ("weights", model.fingerprint(), wanted.fingerprint),
            ("a chat template", model.template.hash(), wanted.template_hash),
        ):
            if seen != expected:
                return model, f"{what} with the hash {seen}, but yours has {expected}"
        return model, ""

    def _load(self, spec: ModelSpec) -> Model:
        base = _base_of(spec)
        model = next((model for known, model in self._bases if known == base), None)
        if model is None:
            model = load_spec(base)
            self._bases.append((base, model))
        if spec == base or spec.adapter is None:
            return model
        return with_adapter(model, spec.adapter, revision=spec.adapter_revision)

    def _forget(self, base: ModelSpec) -> None:
        """Drop the weights, before others are loaded."""
        self._bases = [(known, model) for known, model in self._bases if known != base]
        self._held = [(held, model) for held, model in self._held if _base_of(held.spec) != base]
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _base_of(spec: ModelSpec) -> ModelSpec:
    """What is loaded for ``spec`` before a live adapter is put on it."""
    return spec if spec.adapter is None or spec.merge else replace(spec, adapter=None, adapter_revision=None)


def _packed(result: Any) -> bytes:
    """``result`` as bytes; what Ray unpacks by itself is in its shared memory, read-only and gone with the cluster."""
    from ray import cloudpickle

    packed: bytes = cloudpickle.dumps(result)
    return packed
