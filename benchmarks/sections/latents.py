"""The time and memory to stream an SAE over many tokens, compared with encoding them all at once."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import persona_probe as pp
from benchmarks import memory
from benchmarks.child import in_child
from benchmarks.random_model import open_model
from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.shapes import Shape
from benchmarks.timing import in_turn, ratios, summary
from persona_probe.latents.encoding.encode import encode_latents
from persona_probe.latents.loading import quiet_sae_lens
from persona_probe.latents.sae import LatentWarning, Sae

ACTIVE, EXAMPLES, GROUPS = 64, 10, 64
LARGEST_DIFFERENCE = 1e-4
MOST_ROUNDS = 3
ROWS = [
    Row("latents.time_vs_dense", "time to stream an SAE over tokens, against encoding all at once", "times", True),
    Row("latents.memory_vs_dense", "peak memory of that beyond model and SAE, against all at once", "times", True),
    Row("latents.wide_extra_megabytes", "memory beyond model and a 131,072-wide SAE, 50,000 tokens", "megabytes", True),
    Row("latents.wide_memory_ratio_10x", "the same, against a tenth of the tokens", "times"),
]


@dataclass(frozen=True)
class Size:
    """The size of an SAE, and how many dialogues (of about 210 tokens each) it reads."""

    width: int
    d_model: int
    dialogues: int


DENSE, WIDE = Size(16_384, 512, 40), Size(131_072, 256, 240)
TINY_DENSE, TINY_WIDE = Size(512, 64, 12), Size(1024, 64, 20)
HOW = f"""\
JumpReLU SAEs with random weights and about {ACTIVE} active latents per token, on the only block of a small random
model, at every token of the dialogues except the beginning of sequence. Ours is `encode_latents` ({GROUPS} groups,
{EXAMPLES} examples per latent). All at once: `pp.capture(..., reduce="tokens")`, `encode` of the whole matrix, means
and firing of each dialogue, and `topk` over tokens. Both run the model over the same {DENSE.dialogues} dialogues (9,363
tokens); the SAE has {DENSE.width:,} latents and d_model {DENSE.d_model}. Timed in turn, at most {MOST_ROUNDS} rounds;
the run fails if means, firing or largest activations differ by more than {LARGEST_DIFFERENCE:g} of the largest. Memory
is measured in fresh processes, beyond that of model and SAE. The wide SAE has {WIDE.width:,} latents (d_model
{WIDE.d_model}) and reads {WIDE.dialogues} dialogues, and a tenth of them in as many groups; a second model would add
{8 * GROUPS * WIDE.width / 1e6:.0f} MB of sums and {12 * EXAMPLES * WIDE.width / 1e6:.0f} MB of examples."""


def measure(setting: Setting) -> dict[str, Any]:
    tiny = setting.shape_name == "tiny"
    dense, wide = (TINY_DENSE, TINY_WIDE) if tiny else (DENSE, WIDE)
    rounds = min(setting.rounds, MOST_ROUNDS)
    model, sae = opened(setting, dense)
    results: dict[str, Any] = {}

    def ours() -> None:
        results["ours"] = stream(setting, model, sae, dense.dialogues)

    def all_at_once() -> None:
        results["dense"] = at_once(setting, model, sae, dense.dialogues)

    timed = in_turn({"ours": ours, "dense": all_at_once}, rounds, setting.device)
    difference = _largest_difference(results["ours"], results["dense"])
    if difference > LARGEST_DIFFERENCE:
        raise RuntimeError(f"streamed statistics differ from those of all tokens at once by {difference:.2g}")
    compared = {"time_vs_dense": ratios(timed["ours"], timed["dense"])}
    figures: dict[str, float | None] = {"time_vs_dense": summary(compared["time_vs_dense"])["median"]}
    raw: dict[str, Any] = {
        "seconds": {name: summary(took) for name, took in timed.items()},
        "largest_difference": difference,
        "tokens": results["ours"].tokens,
        "ratios": {name: summary(values) for name, values in compared.items()},
    }
    names = ("memory_vs_dense", "wide_extra_megabytes", "wide_memory_ratio_10x")
    if not memory.available(setting.device):
        return {
            "figures": figures | dict.fromkeys(names),
            "raw": raw | {"skipped": dict.fromkeys(names, memory.UNAVAILABLE)},
        }
    runs = {
        "ours": in_child(held, setting, "ours", dense.width, dense.d_model, dense.dialogues),
        "dense": in_child(held, setting, "dense", dense.width, dense.d_model, dense.dialogues),
        "wide": in_child(held, setting, "ours", wide.width, wide.d_model, wide.dialogues),
        "wide_tenth": in_child(held, setting, "ours", wide.width, wide.d_model, wide.dialogues // 10),
    }
    figures["memory_vs_dense"] = runs["ours"]["extra"] / runs["dense"]["extra"]
    figures["wide_extra_megabytes"] = runs["wide"]["extra"] / 1e6
    figures["wide_memory_ratio_10x"] = runs["wide"]["extra"] / runs["wide_tenth"]["extra"]
    return {"figures": figures, "raw": raw | {"memory": runs}}


def held(setting: Setting, how: str, width: int, d_model: int, dialogues: int) -> dict[str, float]:
    """Bytes before and at most; called in a separate process."""
    model, sae = opened(setting, Size(width, d_model, dialogues))
    tokens: list[int] = []

    def run() -> None:
        result = (stream if how == "ours" else at_once)(setting, model, sae, dialogues)
        tokens.append(result.tokens if how == "ours" else 0)

    return {**memory.peak_of(run, setting.device), "tokens": tokens[0]}


def opened(setting: Setting, size: Size) -> tuple[pp.Model, Sae]:
    """A model of one block, and an SAE whose threshold lets about `ACTIVE` latents through."""
    shape = Shape(f"latents-{size.d_model}", 1, size.d_model, 16, 4, 2, 32_000)
    model = open_model(Path(setting.root), shape, setting.device)
    with quiet_sae_lens():
        from sae_lens import JumpReLUSAE, JumpReLUSAEConfig
    inner = JumpReLUSAE(JumpReLUSAEConfig(size.d_model, size.width, device=setting.device))
    torch.manual_seed(0)
    with torch.no_grad():
        inner.W_dec.normal_().div_(inner.W_dec.norm(dim=1, keepdim=True))
        inner.W_enc.copy_(inner.W_dec.T)
        some = pp.capture(model, setting.dialogues[:1], span="all", reduce="tokens").values[:16, 0]
        before = torch.as_tensor(some, device=setting.device) @ inner.W_enc
        inner.threshold.fill_(float(before.topk(ACTIVE, dim=1).values[:, -1].mean()))
    return model, Sae(inner, 0, "random", {"architecture": "jumprelu"})


def stream(setting: Setting, model: pp.Model, sae: Sae, dialogues: int) -> Any:
    groups = np.linspace(0, GROUPS - 1, dialogues).astype(int)  # a tenth of the dialogues has as many
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentWarning)  # it reconstructs nothing
        (result,) = encode_latents(
            [model],
            sae,
            setting.dialogues[:dialogues],
            "all",
            groups=groups,
            examples=EXAMPLES,
            sink_ratio=None,
            allow_unrelated=True,
        )
    return result


@torch.inference_mode()
def at_once(setting: Setting, model: pp.Model, sae: Sae, dialogues: int) -> dict[str, np.ndarray]:
    read = pp.capture(model, setting.dialogues[:dialogues], span="all", reduce="tokens")
    counted = (read.table["position"] > 0).to_numpy()  # without the beginning of sequence
    acts = sae.encode(torch.as_tensor(read.values[counted, 0], device=setting.device))
    lengths = np.bincount(read.table["dialogue"][counted].to_numpy()).tolist()
    parts = acts.split(lengths)
    best = acts.topk(EXAMPLES, dim=0)
    return {
        "mean": torch.stack([part.mean(dim=0) for part in parts]).mean(dim=0).cpu().numpy(),
        "frequency": torch.stack([(part > 0).float().mean(dim=0) for part in parts]).mean(dim=0).cpu().numpy(),
        "best": best.values[0].cpu().numpy(),
    }


def _largest_difference(streamed: Any, dense: dict[str, np.ndarray]) -> float:
    mine = {"mean": streamed.mean, "frequency": streamed.frequency, "best": streamed.examples.values[:, 0]}
    return max(float(np.abs(mine[name] - other).max() / np.abs(other).max()) for name, other in dense.items())
