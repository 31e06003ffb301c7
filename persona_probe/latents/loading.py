"""Opening SAEs from SAELens' registry, Hub repositories and local folders, and in other formats with its loaders."""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from persona_probe.errors import NUMBER, PATH, WHOLE, PersonaProbeError, check_types, library_message
from persona_probe.latents.sae import Sae, layer_of_hook
from persona_probe.latents.stored_config import CONFIG, check_config, config_of_release, read_config
from persona_probe.models.quiet import quiet_transformer_lens

_UNREADABLE = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder", "temporal")


def load_sae(
    release: str | Path,
    sae_id: str | None = None,
    *,
    layer: int | None = None,
    device: str | torch.device | None = None,
    dtype: str = "float32",
    activation_scale: float | None = None,
    converter: Callable[..., Any] | None = None,
) -> Sae:
    """The SAE in a folder, release or repository.

    Args:
        release: a local SAELens folder (as `persona_probe.latents.train_sae` writes), or with ``sae_id`` a release of
            SAELens' registry (``qwen2.5-7b-instruct-andyrdt``, ``gemma-scope-2b-pt-res-canonical``,
            ``llama_scope_lxr_8x``) or a Hub repository.
        sae_id: the name of the SAE in the release (``resid_post_layer_15_trainer_1``).
        layer: the layer that it reads, if its config does not give it, or gives a wrong one.
        device: the device of its weights; default the CPU. It moves to the model's device when it is used.
        dtype: the precision of its weights.
        activation_scale: the factor by which activations are multiplied for an SAE that was trained on scaled ones
            (``expected_average_only_in``) and does not have the scale in its weights: sqrt(d_model) over the mean norm.
        converter: one of SAELens' loaders, for a folder or repository in another format
            (``sae_lens.loading.pretrained_sae_loaders``).

    Raises:
        PersonaProbeError: if it does not exist or cannot be read (releases with similar names are listed), does not
            read the residual stream, needs a scale that was not given, its config says something else than what
            SAELens would open (an unknown activation function, for example), or ``layer`` is negative.

    Examples:
        >>> import persona_probe as pp
        >>> sae = pp.latents.load_sae(pp.persona_world.find_checkpoints() / "sae-layer3")
        >>> sae.layer, sae.width, sae.d_model
        (3, 1024, 160)
    """
    check_types(
        release=(release, PATH),
        sae_id=(sae_id, str, None),
        layer=(layer, WHOLE, None),
        dtype=(dtype, str),
        activation_scale=(activation_scale, NUMBER, None),
    )
    if layer is not None and layer < 0:
        raise PersonaProbeError(f"layer is {layer}; layers are counted from the first, which is 0")
    where = "cpu" if device is None else str(device)
    folder = Path(release)
    with quiet_sae_lens():
        if sae_id is None:
            inner = _from_folder(folder, where, dtype, converter)
            name, stored = str(release), read_config(folder / CONFIG) if converter is None else None
        else:
            inner = _from_release(str(release), sae_id, where, dtype, converter)
            name, stored = f"{release}/{sae_id}", config_of_release(str(release), sae_id) if converter is None else None
    cfg = inner.cfg
    if cfg.architecture() in _UNREADABLE:
        raise PersonaProbeError(f"{name} is a {cfg.architecture()}, not an SAE whose output reconstructs its input")
    if cfg.reshape_activations != "none":
        raise PersonaProbeError(f"{name} reads attention heads ({cfg.reshape_activations}), not the residual stream")
    not_used = {} if stored is None else check_config(stored, cfg, name, layer_given=layer is not None)
    if layer is None:
        if not cfg.metadata.hook_name:
            raise PersonaProbeError(f"{name} does not say which layer it reads; give it with layer=")
        layer = layer_of_hook(cfg.metadata.hook_name)
    _check_finite(inner, name)
    _scale(inner, activation_scale, name)
    return Sae(inner, layer, name, _card(cfg) | ({"config_not_used": not_used} if not_used else {}))


def _from_folder(folder: Path, device: str, dtype: str, converter: Callable[..., Any] | None) -> Any:
    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import sae_lens_disk_loader

    if not folder.is_dir():
        raise PersonaProbeError(
            f"{folder}: there is no such folder; for SAEs of a release or Hub repository give sae_id= too"
        )
    if converter is None and not (folder / CONFIG).is_file():
        raise PersonaProbeError(
            f"{folder}: holds no {CONFIG}, so it is not a SAELens folder; for another format give converter="
        )
    with _in_words(str(folder)):
        return SAE.load_from_disk(folder, device=device, dtype=dtype, converter=converter or sae_lens_disk_loader)


def _from_release(release: str, sae_id: str, device: str, dtype: str, converter: Callable[..., Any] | None) -> Any:
    from sae_lens import SAE
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    known = get_pretrained_saes_directory()
    if release not in known and "/" not in release:
        raise PersonaProbeError(
            f"SAELens has no release {release!r}{_alike(release, list(known))}; for a Hub repository give owner/name"
        )
    if release in known and sae_id not in known[release].saes_map:
        ids = list(known[release].saes_map)
        raise PersonaProbeError(
            f"release {release!r} has no SAE {sae_id!r}{_alike(sae_id, ids)}; "
            f"it has {len(ids)}, the first is {ids[0]!r}"
        )
    with _in_words(f"{release}/{sae_id}"):
        return SAE.from_pretrained(release, sae_id, device=device, dtype=dtype, converter=converter)


def _alike(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


@contextlib.contextmanager
def _in_words(name: str) -> Iterator[None]:
    """A context in which errors of the libraries become errors that name the SAE."""
    try:
        yield
    except PersonaProbeError:
        raise
    except Exception as error:  # each of a dozen loaders raises its own
        message = f"there is no {error} in it" if isinstance(error, KeyError) else library_message(error)
        offline = " (offline: HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("0", "") else ""
        raise PersonaProbeError(f"{name}: the SAE cannot be loaded{offline}: {message}") from error


@contextlib.contextmanager
def quiet_sae_lens() -> Iterator[None]:
    """A context that hides messages of SAELens, on import and while it loads, on which nobody can act."""
    with quiet_transformer_lens(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*module has been deprecated")
        warnings.filterwarnings("ignore", message=r"\s*This SAE has non-empty model_from_pretrained_kwargs")
        warnings.filterwarnings("ignore", message="norm_scaling_factor not found")  # then the scale is asked for
        warnings.filterwarnings("ignore", message="You are loading an SAE using the HuggingFace repo_id")
        yield


def _scale(inner: Any, scale: float | None, name: str) -> None:
    how = inner.cfg.normalize_activations
    if how == "covariance_whitening":
        raise PersonaProbeError(
            f"{name} was trained on whitened activations, and its weights do not contain the whitening; fold it in "
            "with SAELens' fold_activation_whitening and save the SAE again"
        )
    if scale is None:
        if how == "expected_average_only_in":
            raise PersonaProbeError(
                f"{name} was trained on activations normalised by {how!r}, and its weights do not contain that; give "
                "activation_scale= (sqrt(d_model) over the mean norm of what it was trained on)"
            )
        return
    if how not in ("none", "expected_average_only_in"):
        raise PersonaProbeError(f"{name} normalises each token by itself ({how!r}); leave out activation_scale")
    if not 0 < scale < math.inf:
        raise PersonaProbeError(f"activation_scale is {scale}; it must be positive and finite")
    inner.fold_activation_norm_scaling_factor(scale)


def _check_finite(inner: Any, name: str) -> None:
    for weight, values in inner.named_parameters():
        # The sum of finite numbers overflows only if they are absurdly large; unlike isfinite() it needs no memory.
        if not math.isfinite(float(values.detach().sum(dtype=torch.float32))):
            raise PersonaProbeError(f"{name}: {weight} is not finite (NaN or infinite); the file is broken")


def _card(cfg: Any) -> dict[str, Any]:
    about = cfg.metadata
    card = {
        "architecture": cfg.architecture(),
        "model_name": about.model_name,
        "hook_name": about.hook_name,
        "neuronpedia_id": about.neuronpedia_id,
        "prepend_bos": about.prepend_bos,
    }
    return {**card, **(about.persona_probe or {})}
