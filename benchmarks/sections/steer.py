"""The time of steered generation, compared with plain generation and the usual tools."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

import persona_probe as pp
from benchmarks import memory
from benchmarks.host_waits import host_waits
from benchmarks.mfu import utilisation
from benchmarks.prompts import Prompts, ask
from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.shapes import DEFAULT, SHAPES
from benchmarks.steering_peers import bridge, nnsight, ours, plain
from benchmarks.steering_peers.agreement import AGREEMENT, LOW_PRECISION_AGREEMENT, check
from benchmarks.timing import in_turn, ratios, speeds, summary

STRENGTH = 0.1  # of a vector of standard normal numbers
TARGET = 3.0  # a projection that random activations do not have
NO_NNSIGHT = "nnsight is not installed"
CPU, GPU = (SHAPES[DEFAULT[device]] for device in ("cpu", "cuda"))
BATCHES = sorted({GPU.batch, *GPU.more_batches})
ROWS = [
    Row("steer.vs_plain_one_layer", "time to generate, steered at one layer, over unsteered", "times", True),
    Row("steer.vs_plain_all_layers", "time to generate, steered at every layer, over unsteered", "times", True),
    Row("steer.vs_plain_per_row", "time to generate, another strength for every row, over unsteered", "times"),
    Row("steer.vs_plain_clamp", "time to generate, clamped at one layer, over unsteered", "times"),
    Row("steer.vs_plain_cap", "time to generate, capped at one layer, over unsteered", "times"),
    Row("steer.vs_plain_dialogues", "time of `model.generate`, steered at one layer, over unsteered", "times"),
    Row("steer.opening_seconds", "time to open and close `pp.steer`, part of every steered time above", "seconds"),
    Row("steer.bridge_vs_plain_bridge", "time of the bridge's `generate` with a hook, over without", "times"),
    Row("steer.nnsight_vs_plain", "time of nnsight's steered `generate`, over unsteered without nnsight", "times"),
    Row("steer.vs_bridge", "speed of generation steered by `pp.steer`, over the bridge's with a hook", "times", True),
    Row("steer.vs_nnsight", "speed of generation steered by `pp.steer`, over nnsight's", "times", True),
    *(
        Row(f"steer.{name}_batch_{batch}", f"{words}, batch {batch}", "tokens_per_second", gpu_only=True)
        for batch in BATCHES
        for name, words in (
            ("plain", "speed of generation, unsteered"),
            ("one_layer", "speed of generation, steered at one layer"),
        )
    ),
    *(
        Row(
            f"steer.vs_plain_{layers}_batch_{batch}",
            f"time to generate, steered at {words}, over unsteered, batch {batch}",
            "times",
            gpu_only=True,
        )
        for batch in GPU.more_batches
        for layers, words in (("one_layer", "one layer"), ("all_layers", "every layer"))
    ),
    *(
        Row(
            f"steer.peak_memory_batch_{batch}",
            f"peak memory, steered at every layer, over unsteered, batch {batch}",
            "times",
            gpu_only=True,
        )
        for batch in BATCHES
    ),
    Row(
        "steer.extra_waits_per_step",
        "how much more often per step the host waits for the GPU, steered at every layer, than unsteered",
        "number",
        gpu_only=True,
    ),
]
HOW = f"""\
Greedy answers of exactly {CPU.new_tokens} tokens (on a GPU {GPU.new_tokens}) to {CPU.batch} questions in one batch,
padded on the left; on a GPU, to {" and ".join(map(str, GPU.more_batches))} too.

- *unsteered*: Hugging Face's `model.hf.generate` on ids that were tokenized and padded beforehand.
- *steered*: the same call inside `pp.steer(model, ..., scope="all")`, including the time to open the context (a pass
  over the weights, which checks whether the direction belongs to this model): a direction added at one (the middle)
  layer or at all layers; at one layer with another strength for every row of the batch; the projection at one layer
  clamped to a target, or capped (by bounds outside of which it is).
- *`model.generate`*: dialogues in and out, rendering and decoding included, plain and with the direction added at one
  layer under the default scope, `generation`.
- *the bridge*: `model.bridge.generate`, TransformerLens' own loop, with its KV cache and eager attention, plain and
  with a hook on the middle block's `hook_out` that adds the vector.
- *nnsight*: `generate` inside a trace that adds the vector to the middle block's output at every step.

Ours, the bridge and nnsight add the same vector at the same layer to all tokens. Before anything is timed, they must
give the same tokens (in float32, {100 * AGREEMENT:.0f} % of all new tokens; in bfloat16, where another kind of
attention rounds differently, {100 * LOW_PRECISION_AGREEMENT:.0f} % of the first new tokens), every intervention must
change the answers, and all answers must be equally long. All variants run in one process, one after the other, in an
order that rotates every round; a figure is the median over rounds of the ratio within a round.

On a GPU, peak memory is what torch has allocated there, weights included, and waits are what torch's
`set_sync_debug_mode` reports, over the steps of one generation (half precision asks once, at the end, whether anything
overflowed)."""

Variants = dict[str, Callable[[], Tensor]]


def measure(setting: Setting) -> dict[str, Any]:
    model, shape, device = setting.model, setting.shape, setting.device
    prompts = ask(model, setting.dialogues[: shape.batch], shape.new_tokens)
    doors, peers, talks = _doors(model, prompts), _peers(setting, prompts), _dialogues(model, prompts)
    agreement = check(model, {name: run() for name, run in {**doors, **peers}.items()})
    timed = in_turn({**doors, **peers, **talks}, setting.rounds, device)

    compared = {f"vs_plain_{name}": ratios(timed[name], timed["plain"]) for name in doors if name != "plain"}
    compared["vs_plain_dialogues"] = ratios(timed["dialogues"], timed["plain_dialogues"])
    compared["bridge_vs_plain_bridge"] = ratios(timed["bridge"], timed["plain_bridge"])
    compared["vs_bridge"] = ratios(timed["bridge"], timed["one_layer"])
    compared["opening_seconds"] = in_turn({"opening": _opening(model)}, setting.rounds, device)["opening"]
    absent: dict[str, float | None] = {"vs_nnsight": None, "nnsight_vs_plain": None}
    if "nnsight" in timed:
        compared["nnsight_vs_plain"] = ratios(timed["nnsight"], timed["plain"])
        compared["vs_nnsight"] = ratios(timed["nnsight"], timed["one_layer"])
    raw: dict[str, Any] = {
        "dialogues": shape.batch,
        "prompt_width": prompts.width,
        "new_tokens": prompts.new_tokens,
        "agreement": agreement,
        "variants": speeds(timed, shape.batch * prompts.new_tokens),
        "skipped": {} if "nnsight" in timed else dict.fromkeys(absent, NO_NNSIGHT),
    }
    read = [prompt + prompts.new_tokens for prompt in prompts.mask.sum(dim=1).tolist()]
    raw["utilisation"] = {
        name: utilisation(model, read, summary(timed[name])["median"]) for name in ("plain", "one_layer", "all_layers")
    }
    figures: dict[str, float | None] = {}
    if shape.more_batches:
        raw["batches"] = {str(shape.batch): _some(raw["variants"])}
        for batch in shape.more_batches:
            again = _at_batch(setting, batch)
            raw["batches"][str(batch)] = speeds(again, batch * prompts.new_tokens)
            compared |= {
                f"vs_plain_{name}_batch_{batch}": ratios(again[name], again["plain"])
                for name in ("one_layer", "all_layers")
            }
        figures |= {
            f"{name}_batch_{batch}": speed[name]["tokens_per_second"]
            for batch, speed in raw["batches"].items()
            for name in ("plain", "one_layer")
        }
    if device == "cuda":
        raw["memory"] = {str(batch): _peaks(setting, batch) for batch in (shape.batch, *shape.more_batches)}
        raw["host_waits"] = {name: host_waits(doors[name]) for name in ("plain", "one_layer", "all_layers")}
        more = raw["host_waits"]["all_layers"] - raw["host_waits"]["plain"]
        figures["extra_waits_per_step"] = more / prompts.new_tokens
        figures |= {
            f"peak_memory_batch_{batch}": peak["all_layers"]["peak"] / peak["plain"]["peak"]
            for batch, peak in raw["memory"].items()
        }
    raw["ratios"] = {name: summary(values) for name, values in compared.items()}
    medians = {name: values["median"] for name, values in raw["ratios"].items()}
    return {"figures": absent | medians | figures, "raw": raw}


def _vectors(model: pp.Model) -> pp.Direction:
    vectors = np.random.default_rng(0).normal(size=(model.n_layers, model.d_model))
    return pp.Direction.from_vectors(model, STRENGTH * vectors)


def _doors(model: pp.Model, prompts: Prompts) -> Variants:
    """Hugging Face's `generate`, plain and steered by ours."""
    direction, layer = _vectors(model), model.n_layers // 2
    one = pp.Add(direction, layer, scope="all")
    strengths = np.linspace(0.5, 1.5, len(prompts.dialogues))
    interventions: dict[str, Any] = {
        "one_layer": one,
        "all_layers": pp.Add(direction, "all", scope="all"),
        "per_row": [one.with_strength(float(strength)) for strength in strengths],
        "clamp": pp.Clamp(direction, layer, target=TARGET, scope="all"),
        "cap": pp.steering.Cap(direction, layer, lower=TARGET, upper=2 * TARGET, scope="all"),
    }
    steered = {name: ours.make(model, prompts, what) for name, what in interventions.items()}
    return {"plain": plain.make(model, prompts), **steered}


def _opening(model: pp.Model) -> Callable[[], None]:
    one = pp.Add(_vectors(model), model.n_layers // 2)

    def run() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pp.PersonaProbeWarning)  # that nothing was steered
            with pp.steer(model, one):
                pass

    return run


def _peers(setting: Setting, prompts: Prompts) -> Variants:
    """Generation with the bridge and with nnsight, with the same vector at the same layer."""
    model, layer = setting.model, setting.model.n_layers // 2
    vector = torch.from_numpy(_vectors(model).at(layer)).to(model.device, model.hf.dtype)
    peers = {
        "plain_bridge": bridge.make_plain(model, prompts),
        "bridge": bridge.make(model, prompts, vector, layer),
    }
    return peers | ({"nnsight": nnsight.make(model, prompts, vector, layer)} if setting.has("nnsight") else {})


def _dialogues(model: pp.Model, prompts: Prompts) -> dict[str, Callable[[], list[pp.Dialogue]]]:
    """`model.generate`, plain and steered, which must make equally many forward passes of the same shapes."""

    def run() -> list[pp.Dialogue]:
        batch = len(prompts.dialogues)
        return model.generate(
            prompts.dialogues, pp.Sampling(max_new_tokens=prompts.new_tokens, temperature=0.0, batch_size=batch)
        )

    one = pp.Add(_vectors(model), model.n_layers // 2)

    def steered() -> list[pp.Dialogue]:
        with pp.steer(model, one):
            return run()

    variants = {"plain_dialogues": run, "dialogues": steered}
    forwards: dict[str, list[torch.Size]] = {name: [] for name in variants}
    for name, variant in variants.items():
        with model.stream.reading(lambda _, hidden, seen=forwards[name]: seen.append(hidden.shape), [0]):
            variant()
    if forwards["dialogues"] != forwards["plain_dialogues"]:
        raise RuntimeError("an answer ended early, so times of model.generate cannot be compared: change the strength")
    return variants


def _some(variants: Mapping[str, Any]) -> dict[str, Any]:
    return {name: variants[name] for name in ("plain", "one_layer", "all_layers")}


def _of_batch(setting: Setting, batch: int) -> Variants:
    prompts = ask(setting.model, setting.dialogues[:batch], setting.shape.new_tokens)
    return _some(_doors(setting.model, prompts))


def _at_batch(setting: Setting, batch: int) -> dict[str, list[float]]:
    return in_turn(_of_batch(setting, batch), setting.rounds, setting.device)


def _peaks(setting: Setting, batch: int) -> dict[str, dict[str, int]]:
    return {name: memory.peak_of(run, setting.device) for name, run in _of_batch(setting, batch).items()}
