"""The speed and memory of `pp.capture`, compared with the bare forward pass and the usual tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks import memory
from benchmarks.child import in_child
from benchmarks.mfu import utilisation
from benchmarks.peers import bare, bridge, nnsight, ours, research_loop
from benchmarks.prepared import tokens_of
from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.timing import in_turn, ratios, speeds, summary
from persona_probe.activations.batching import tokens_per_batch_for

ROWS = [
    Row("capture.vs_bare", "speed of `pp.capture`, of the bare forward pass's (100 % is the limit)", "share", True),
    Row(
        "capture.vs_research_loop",
        "speed of `pp.capture`, over the usual research loop's (one dialogue at a time)",
        "times",
        True,
    ),
    Row(
        "capture.vs_bridge",
        "speed of `pp.capture`, over TransformerLens' `run_with_cache` on the same batches",
        "times",
        True,
    ),
    Row("capture.vs_nnsight", "speed of `pp.capture`, over nnsight's trace on the same batches", "times", True),
    Row(
        "capture.bare_vs_research_loop",
        "speed of the bare forward pass, over the usual research loop's (the limit of that)",
        "times",
        True,
    ),
    Row(
        "capture.peak_memory_vs_bare",
        "peak memory of `pp.capture`, over the bare forward pass's (whole process)",
        "times",
        True,
    ),
    Row(
        "capture.mfu",
        "share of the GPU's peak arithmetic that `pp.capture` uses (bf16, dense)",
        "share",
        True,
        gpu_only=True,
    ),
]
HOW = """\
Response means of every layer, float32, for 512 dialogues of 20 to 400 tokens (uniform; most of them answer).

- *ours*: `pp.capture(model, dialogues, span="response", reduce="mean")`, including rendering, tokenizing and all
  defaults (also the search for attention sinks, of which random weights have none).
- *bare*: the backbone alone, in inference mode, on the same batches as ours, tokenized and padded beforehand;
  nothing is read. This is the limit.
- *the usual research loop*: one dialogue at a time, `apply_chat_template`, the whole model under `no_grad` with
  `output_hidden_states=True`, the mean of each layer moved to the CPU.
- *TransformerLens' bridge*: `run_with_cache` of the blocks' `hook_out` on the same prepared batches, attention mask
  given, no KV cache, logits of one position only; its attention is eager (`model.bridge`).
- *nnsight*: the means saved inside the trace, on the same prepared batches; the trace stops before the head.

Before anything is timed, every peer's means must agree with ours (relative error per dialogue and layer below 1e-3 in
float32, 3e-2 in bfloat16; the loop's last layer is left out, which Hugging Face returns after the final norm). All
variants run in one process, one after the other, in an order that rotates every round; a figure is the median over
rounds of the ratio within a round. *ours* and *bare* read all dialogues; on a CPU the peers read a fixed random
quarter, which *ours* and *bare* read again in the same rounds.

Peak memory: *ours* and *bare* each in a fresh process, over all dialogues, after the model is loaded and a first small
forward pass is done. The figure compares the whole process (weights included; on a GPU, what torch allocated there);
the JSON also has the bytes that each needs beyond the loaded model.

On a GPU, arithmetic is counted as 2 x parameters (without embeddings) x tokens and causal attention's two products;
padding does not count; the peak is 989 TFLOP/s (H100 and H200; `benchmarks/mfu.py` has other cards)."""

PEERS = {"research_loop": research_loop, "bridge": bridge, "nnsight": nnsight}
TOLERANCE = {torch.float32: 1e-3}
LOW_PRECISION_TOLERANCE = 3e-2
CHECKED = 16
NO_NNSIGHT = "nnsight is not installed"
NO_FRESH_PROCESSES = "left out of a brief run, since each fresh process makes the model again"


def measure(setting: Setting) -> dict[str, Any]:
    model, device = setting.model, setting.device
    peers = {name: peer for name, peer in PEERS.items() if name != "nnsight" or setting.has("nnsight")}
    errors = {name: _check(name, peer, setting) for name, peer in peers.items()}

    everything = in_turn(
        {"ours": ours.make(model, setting.dialogues), "bare": bare.make(model, setting.dialogues)},
        setting.rounds,
        device,
    )
    some = in_turn(
        {
            name: peer.make(model, setting.some_dialogues)
            for name, peer in {"ours": ours, "bare": bare, **peers}.items()
        },
        setting.rounds,
        device,
    )
    lengths = tokens_of(model, setting.dialogues)
    compared = {"vs_bare": ratios(everything["bare"], everything["ours"])}
    compared |= {f"vs_{name}": ratios(some[name], some["ours"]) for name in peers}
    compared["bare_vs_research_loop"] = ratios(some["research_loop"], some["bare"])
    figures: dict[str, float | None] = {"vs_nnsight": None, "peak_memory_vs_bare": None}
    figures |= {name: summary(values)["median"] for name, values in compared.items()}
    raw: dict[str, Any] = {
        "ratios": {name: summary(values) for name, values in compared.items()},
        "all_dialogues": {
            "dialogues": len(setting.dialogues),
            "tokens": sum(lengths),
            "variants": speeds(everything, sum(lengths)),
        },
        "some_dialogues": {
            "dialogues": len(setting.some_dialogues),
            "tokens": (tokens := sum(tokens_of(model, setting.some_dialogues))),
            "variants": speeds(some, tokens),
        },
        "tokens_per_batch": tokens_per_batch_for(model.device),
        "largest_relative_error": errors,
        "skipped": {} if "nnsight" in peers else {"vs_nnsight": NO_NNSIGHT},
    }
    if not setting.fresh_processes:
        raw["skipped"]["peak_memory_vs_bare"] = NO_FRESH_PROCESSES
    elif memory.available(device):
        raw["memory"] = {peer: in_child(peak, setting, peer) for peer in ("ours", "bare")}
        figures["peak_memory_vs_bare"] = raw["memory"]["ours"]["peak"] / raw["memory"]["bare"]["peak"]
    else:
        raw["skipped"]["peak_memory_vs_bare"] = memory.UNAVAILABLE
    raw["utilisation"] = {
        name: utilisation(model, lengths, summary(everything[name])["median"]) for name in ("ours", "bare")
    }
    if device == "cuda":
        figures["mfu"] = raw["utilisation"]["ours"]["mfu"]
    return {"figures": figures, "raw": raw}


def _check(name: str, peer: Any, setting: Setting) -> float:
    """The largest relative error of a peer's means, by dialogue and layer; a wrong result is not worth timing."""
    dialogues = setting.some_dialogues[:CHECKED]
    expected = ours.make(setting.model, dialogues)()
    error = (peer.make(setting.model, dialogues)() - expected).norm(dim=-1) / expected.norm(dim=-1)
    if name == "research_loop":
        error = error[:, :-1]  # Hugging Face returns the last layer after the final norm
    tolerance = TOLERANCE.get(setting.model.hf.dtype, LOW_PRECISION_TOLERANCE)
    largest = float(error.max())
    if not largest <= tolerance:
        raise RuntimeError(
            f"{name} and capture give different means: relative error {largest:.2g}, more than {tolerance}"
        )
    return largest


def peak(setting: Setting, peer: str) -> dict[str, int]:
    """The memory with the model loaded, and its peak; called in a separate process."""
    make: Callable[..., Callable[[], object]] = {"ours": ours, "bare": bare}[peer].make
    make(setting.model, setting.dialogues[:2])()
    return memory.peak_of(make(setting.model, setting.dialogues), setting.device)
