"""What SAE training starts from: random weights, or those of another SAE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from persona_probe.errors import PersonaProbeError
from persona_probe.latents.loading import load_sae
from persona_probe.latents.sae import Sae
from persona_probe.latents.training.settings import SaeSettings
from persona_probe.models.model import Model


def check_start(start: Sae | str | Path, model: Model, layer: int, settings: SaeSettings) -> Sae:
    """The SAE to continue from.

    Raises:
        PersonaProbeError: if it has another layer or width, or parameters that training does not support.
    """
    sae = start if isinstance(start, Sae) else load_sae(start)
    for what, its, wanted in (
        ("reads layer", sae.layer, layer),
        ("reads vectors of width", sae.d_model, model.d_model),
        ("has a number of latents of", sae.width, settings.width or sae.width),
    ):
        if its != wanted:
            raise PersonaProbeError(f"start: the SAE {sae.name} {what} {its}, but {wanted} is needed here")
    missing = [name for name in ("W_enc", "b_enc", "W_dec", "b_dec") if not hasattr(sae.inner, name)]
    if missing or sae.inner.cfg.normalize_activations != "none":
        why = f"no {missing[0]}" if missing else f"its own normalisation ({sae.inner.cfg.normalize_activations})"
        raise PersonaProbeError(f"start: the SAE {sae.name} has {why}, so training cannot continue from it")
    return sae


def untrained(width: int, d_model: int, settings: SaeSettings, origin: Sae | None, device: str) -> Any:
    """A training SAE of SAELens with random weights, for activations scaled to a mean norm of sqrt(d_model)."""
    import sae_lens

    shared: dict[str, Any] = {
        "d_in": d_model,
        "d_sae": width,
        "device": device,
        "normalize_activations": "expected_average_only_in",
        "apply_b_dec_to_input": True if origin is None else origin.inner.cfg.apply_b_dec_to_input,
    }
    steps, aux = settings.tokens // settings.batch, settings.aux_coefficient
    if settings.kind == "jumprelu":
        return sae_lens.JumpReLUTrainingSAE(
            sae_lens.JumpReLUTrainingSAEConfig(
                **shared,
                jumprelu_sparsity_loss_mode="quadratic",
                target_l0=float(settings.k),
                l0_coefficient=settings.sparsity_coefficient,
                l0_warm_up_steps=steps // 4,
                # A threshold moves by about one learning rate per step: it must start near where it ends, and its
                # gradient must reach the encoder too (Anthropic's variant), or three quarters of the latents die.
                jumprelu_init_threshold=0.5,
                jumprelu_bandwidth=0.5,
                jumprelu_ste_to_input=True,
            )
        )
    if settings.kind == "topk":
        return sae_lens.TopKTrainingSAE(
            sae_lens.TopKTrainingSAEConfig(**shared, k=settings.k, aux_loss_coefficient=aux)
        )
    return sae_lens.BatchTopKTrainingSAE(
        sae_lens.BatchTopKTrainingSAEConfig(
            **shared,
            k=float(settings.k),
            aux_loss_coefficient=aux,
            # The threshold is a running mean over steps, which must settle in a short training too.
            topk_threshold_lr=min(1.0, max(0.01, 10 / steps)),
        )
    )


@torch.no_grad()
def continue_from(inner: Any, origin: Sae, scale: float) -> None:
    """Give ``inner`` the weights of ``origin``, for activations times ``scale`` and with decoder rows of length 1."""
    old = origin.inner
    norms = old.W_dec.norm(dim=1).clamp_min(1e-12).to(inner.W_dec)
    inner.W_enc.copy_(old.W_enc.to(norms) * norms)
    inner.b_enc.copy_(old.b_enc.to(norms) * norms * scale)
    inner.W_dec.copy_(old.W_dec.to(norms) / norms[:, None])
    inner.b_dec.copy_(old.b_dec.to(norms) * scale)
    if hasattr(old, "threshold"):
        threshold = old.threshold.to(norms) * norms * scale
        if hasattr(inner, "topk_threshold"):
            inner.topk_threshold.copy_(threshold.mean())
        elif hasattr(inner, "threshold"):
            inner.threshold.copy_(threshold)
