"""A sparse autoencoder on one layer of a model's residual stream."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError, PersonaProbeWarning, check_types
from persona_probe.latents.latent_numbers import check_numbers
from persona_probe.models.model import Model
from persona_probe.models.stream.layers import LAYER_CONVENTION

_NUMBERS_AT_ONCE = 2**23
"""How many activations are in memory while tokens are encoded: 32 MiB in float32, and some more inside the SAE."""
_SEPARABLE = ("standard", "jumprelu", "gated")
_AFTER = re.compile(r"^blocks\.(\d+)\.(?:hook_resid_post|hook_out)$|(?:^|\.)(?:layers|h|blocks)\.(\d+)(?:\.output)?$")
_BEFORE = re.compile(r"^blocks\.(\d+)\.(?:hook_resid_pre|hook_in)$")


class LatentWarning(PersonaProbeWarning):
    """An SAE may not fit the model on which it is used."""


class Sae:
    """A sparse autoencoder (of SAELens) with the layer that it reads.

    Attributes:
        inner: the SAELens object; its parameters are frozen.
        layer: the layer whose output it reads.
        name: its path, or its release and id.
        card: where it comes from: ``model_name``, ``hook_name``, ``architecture``, ``neuronpedia_id``, and what
            `persona_probe.latents.train_sae` wrote (``models``, fingerprints by name; ``span``, ``tokens``, ``seed``).
    """

    def __init__(self, inner: Any, layer: int, name: str, card: Mapping[str, Any]) -> None:
        self.inner, self.layer, self.name, self.card = inner, layer, name, dict(card)
        inner.requires_grad_(False)

    def __repr__(self) -> str:
        """Its name, kind and size."""
        return (
            f"Sae({self.name!r}, {self.card.get('architecture')}, {self.width:,} latents, d_model={self.d_model}, "
            f"layer {self.layer})"
        )

    @property
    def width(self) -> int:
        """The number of latents."""
        return int(self.inner.cfg.d_sae)

    @property
    def d_model(self) -> int:
        """The width of the residual stream that it reads."""
        return int(self.inner.cfg.d_in)

    @property
    def tokens_at_once(self) -> int:
        """The number of tokens that are encoded at a time, so that memory does not grow with the width."""
        return max(1, _NUMBERS_AT_ONCE // self.width)

    def check_model(self, model: Model) -> None:
        """Raise if this SAE cannot read the model, and warn if it was not trained on it.

        Raises:
            PersonaProbeError: if the widths differ or the model has no such layer.
        """
        check_types(model=(model, Model))
        if self.d_model != model.d_model:
            raise PersonaProbeError(
                f"the SAE {self.name} reads vectors of width {self.d_model}, {model.name} has d_model={model.d_model}: "
                "it is the SAE of another model"
            )
        if not 0 <= self.layer < model.n_layers:
            raise PersonaProbeError(
                f"the SAE {self.name} reads layer {self.layer}, {model.name} has layers 0 to {model.n_layers - 1}: "
                "it is the SAE of another model"
            )
        known: Mapping[str, str] = self.card.get("models") or {}
        if known and not {model.fingerprint(), *model.ancestors} & set(known.values()):
            models = ", ".join(f"{name} ({digest})" for name, digest in known.items())
            warnings.warn(
                f"the SAE {self.name} was trained on {models}; {model.name} ({model.fingerprint()}) is not known to "
                "descend from any of them, so look at its reconstruction before you trust it "
                "(pp.latents.measure_reconstruction)",
                LatentWarning,
                stacklevel=2,
            )
            return
        trained = self.card.get("model_name")
        # A tuned model has another name.
        if known or trained is None or model.ancestors or _last(trained) in {_last(name) for name in _names(model)}:
            return
        warnings.warn(
            f"the SAE {self.name} says it is for {trained}, and this model is {model.name}; look at its reconstruction "
            "(pp.latents.measure_reconstruction) before you trust it",
            LatentWarning,
            stacklevel=2,
        )

    def check_latents(self, latents: Sequence[int]) -> list[int]:
        """``latents`` as a list.

        Raises:
            PersonaProbeError: if there is none, or one is not a whole number, does not exist, or is named twice.
        """
        return check_numbers(latents, self.width, self.name)

    @property
    def separable(self) -> bool:
        """Whether a latent's activation depends on its own weights only (TopK must compare all latents)."""
        return self.inner.cfg.architecture() in _SEPARABLE

    def encode(self, hidden: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows latent"]:
        """The latent activations; the SAE moves to the device of ``hidden``.

        All latents of all rows are computed at once; for many tokens use `persona_probe.latents.encode_latents`.
        """
        check_types(hidden=(hidden, Tensor))
        self._move(hidden.device)
        acts: Tensor = self.inner.encode(hidden)
        return acts

    def encode_some(
        self, hidden: Float[Tensor, "*rows d_model"], latents: Int[Tensor, "... latent"]
    ) -> Float[Tensor, "*rows latent"]:
        """The activations of ``latents``; no others are computed if the SAE is `separable`."""
        if not self.separable:
            return self.encode(hidden)[..., latents]
        self._move(hidden.device)
        inner, weights = self.inner, self.inner.W_enc[:, latents]
        given = inner.process_sae_in(hidden)
        if hasattr(inner, "b_gate"):
            magnitude = inner.activation_fn(given @ (weights * inner.r_mag[latents].exp()) + inner.b_mag[latents])
            gated: Tensor = magnitude * (given @ weights + inner.b_gate[latents] > 0)
            return gated
        before = given @ weights + inner.b_enc[latents]
        acts: Tensor = inner.activation_fn(before)
        return acts * (before > inner.threshold[latents]) if hasattr(inner, "threshold") else acts

    def _move(self, device: torch.device) -> None:
        if self.inner.device != device:
            # If weights were moved in inference mode, no gradients could flow through them later.
            with torch.inference_mode(False):
                self.inner.to(device=device)

    def decode(self, acts: Float[Tensor, "*rows latent"]) -> Float[Tensor, "*rows d_model"]:
        """The residual stream from latent activations; call it right after `encode` of the same rows."""
        check_types(acts=(acts, Tensor))
        hidden: Tensor = self.inner.decode(acts)
        return hidden

    def reconstruct(self, hidden: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """``decode(encode(hidden))``, a few tokens at a time."""
        check_types(hidden=(hidden, Tensor))
        parts = hidden.split(self.tokens_at_once)
        return torch.cat([self.decode(self.encode(part)) for part in parts]).to(hidden.dtype)

    def rows(self, latents: Sequence[int]) -> Float[Tensor, "latent d_model"]:
        """What one unit of each latent's activation adds to the residual stream, before run-time normalisation."""
        wanted = self.check_latents(latents)
        rows: Tensor = self.inner.W_dec.detach()[wanted].float()
        # The activations of such SAEs are for decoder rows of length one (`sae_lens.saes.topk_sae.act_times_W_dec`).
        if getattr(self.inner.cfg, "rescale_acts_by_decoder_norm", False):
            rows = rows / rows.norm(dim=-1, keepdim=True)
        return rows

    def output_scale(self) -> Tensor | float:
        """The factor of run-time normalisation for decoded rows, right after `encode`: ``(*rows, 1)``, or 1."""
        how = self.inner.cfg.normalize_activations
        if how == "layer_norm":
            scale: Tensor = self.inner.ln_std
            return scale
        if how == "constant_norm_rescale":
            coefficient: Tensor = self.inner.x_norm_coeff
            return 1.0 / coefficient
        return 1.0

    def direction(self, latent: int) -> Direction:
        """A latent's decoder row as a `Direction` at the SAE's layer; its length is one unit of activation."""
        row = self.rows([latent]).cpu().numpy()
        card = {"finder": "sae latent", "sae": self.name, "latent": int(latent), "model": self.card.get("model_name")}
        return Direction(row, (self.layer,), card)

    def decoder(self) -> Float[np.ndarray, "latent d_model"]:
        """All decoder rows as stored; their angles are those of `rows`, but their lengths may differ."""
        weights: np.ndarray = self.inner.W_dec.detach().float().cpu().numpy()
        return weights

    def neuronpedia(self, latent: int) -> str | None:
        """The address of a latent's page on Neuronpedia, or None if the SAE is not there."""
        place = self.card.get("neuronpedia_id")
        return f"https://www.neuronpedia.org/{place}/{latent}" if place else None


def _names(model: Model) -> list[str]:
    names = [model.name]
    if model.spec is not None:
        names.append(str(model.spec.source))
    configured = getattr(model.plain.config, "_name_or_path", None)
    return [*names, configured] if configured else names


def _last(name: str) -> str:
    """The last part of a name, so that ``meta-llama/Llama-3.1-8B`` and a folder with that name count as the same."""
    return name.rstrip("/").rsplit("/", 1)[-1].casefold()


def hook_name(layer: int) -> str:
    """The name of the output of block ``layer`` in TransformerLens and SAELens."""
    return f"blocks.{layer}.hook_resid_post"


def layer_of_hook(name: str) -> int:
    """The layer whose output is read at the hook ``name``.

    ``blocks.{l}.hook_resid_post``, ``blocks.{l}.hook_out`` and Hugging Face module names (``model.layers.{l}``) are the
    output of block ``l``; ``blocks.{l}.hook_resid_pre`` is the output of block ``l - 1``.

    Raises:
        PersonaProbeError: for any other place (inside a block, the embedding): only the residual stream between blocks
            is read and steered.

    >>> from persona_probe.latents.sae import layer_of_hook
    >>> layer_of_hook("blocks.4.hook_resid_post"), layer_of_hook("blocks.4.hook_resid_pre")
    (4, 3)
    """
    if match := _AFTER.search(name):
        return int(match[1] or match[2])
    if (match := _BEFORE.match(name)) and int(match[1]) > 0:
        return int(match[1]) - 1
    raise PersonaProbeError(
        f"the SAE reads {name!r}, which is not a block's output; only SAEs on the residual stream between blocks can "
        f"be used ({LAYER_CONVENTION}); if the name is wrong, give the layer with layer="
    )
