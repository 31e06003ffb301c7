"""The memory of a pair (a base and a LoRA adapter on it), compared with one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import persona_probe as pp
from benchmarks import memory
from benchmarks.child import in_child
from benchmarks.random_model import RANK, adapter_folder, model_folder, open_model
from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.shapes import SHAPES, Shape

ROWS = [
    Row("pair.memory_vs_one", "memory to load a pair (base and LoRA adapter), over loading one model", "times", True),
    Row("pair.tensors_vs_one", "bytes of the pair's distinct tensors, over one model's", "times"),
]
HOW = f"""\
A base and a rank-{RANK} LoRA adapter on all of its linear layers. Each of *one* (`pp.load`) and *pair*
(`pp.load_pair`) in a fresh process, in which a tiny pair was loaded before, so that libraries do not count: how much
resident memory (on a GPU, allocated memory) grows once every weight has been read (pages of a file are resident only
then), and the bytes of all distinct storages of parameters and buffers."""


def measure(setting: Setting) -> dict[str, Any]:
    adapter_folder(Path(setting.root), setting.shape)
    if setting.shape.on_disk:
        model_folder(Path(setting.root), setting.shape)
    if not memory.available(setting.device):
        figures = {"memory_vs_one": None, "tensors_vs_one": None}
        return {"figures": figures, "raw": {"skipped": {"memory_vs_one": memory.UNAVAILABLE}}}
    raw = {kind: in_child(growth, setting, kind) for kind in ("one", "pair")}
    figures = {
        "memory_vs_one": raw["pair"]["growth"] / raw["one"]["growth"],
        "tensors_vs_one": raw["pair"]["tensors"] / raw["one"]["tensors"],
    }
    return {"figures": figures, "raw": raw}


def growth(setting: Setting, kind: str) -> dict[str, int]:
    """The bytes that loading ``one`` model or a ``pair`` adds, and those of its tensors; in a separate process."""
    _load_pair(setting, SHAPES["tiny"])
    before = memory.held(setting.device)
    if kind == "one":
        loaded = [open_model(Path(setting.root), setting.shape, setting.device)]
    else:
        pair = _load_pair(setting, setting.shape)
        loaded = [pair.before, pair.after]
    tensors = [tensor for model in loaded for tensor in (*model.hf.parameters(), *model.hf.buffers())]
    for tensor in tensors:
        tensor.sum()
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return {"growth": memory.held(setting.device) - before, "tensors": sum(storages.values())}


def _load_pair(setting: Setting, shape: Shape) -> pp.models.ModelPair:
    root = Path(setting.root)
    base = model_folder(root, shape) if shape.on_disk else open_model(root, shape, setting.device)
    return pp.load_pair(base, adapter_folder(root, shape), device=setting.device)
