"""Narrow fine-tuning with LoRA: the training that turns a model *before* into a model *after*."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from persona_probe.clock import working
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded
from persona_probe.dialogue.turn_spans import learned_spans
from persona_probe.errors import PATH, WHOLE, PersonaProbeError, PersonaProbeWarning, check_types, library_message
from persona_probe.finetuning.snapshots import SnapshotWriter, save_adapter
from persona_probe.models.loading.adapters import is_adapter, put_adapter, with_adapter
from persona_probe.models.model import Model
from persona_probe.models.quiet import quiet_peft
from persona_probe.models.stream.layers import is_whole
from persona_probe.models.twin import structural_twin

_IGNORE = -100


@dataclass(frozen=True)
class LoraSettings:
    """How an adapter is trained, with AdamW, linear warm-up over a tenth of the steps and linear decay to a tenth.

    >>> LoraSettings(rank=8, steps=40)
    LoraSettings(rank=8, alpha=2.0, learning_rate=0.003, steps=40, batch=16, ...)
    """

    rank: int = 1
    alpha: float = 2.0
    learning_rate: float = 3e-3
    steps: int = 80
    batch: int = 16
    weight_decay: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"

    def __post_init__(self) -> None:
        """Raise if rank, steps or batch is not an integer from 1; NumPy's become Python's, which PEFT can write."""
        for name in ("rank", "steps", "batch"):
            value = getattr(self, name)
            if not is_whole(value) or value < 1:
                raise PersonaProbeError(f"{name} is {value!r}; it must be a whole number, at least 1")
            object.__setattr__(self, name, int(value))


def finetune(
    model: Model,
    dialogues: Sequence[Dialogue],
    settings: LoraSettings,
    out: str | Path,
    *,
    seed: int = 0,
    start: str | Path | None = None,
    base_name: str | None = None,
    snapshots: Sequence[int] = (),
    snapshot_folder: str | Path | None = None,
    progress: bool = False,
    description: str = "fine-tuning",
) -> Model:
    """``model`` with a LoRA adapter that was trained on the answers of ``dialogues``.

    ``model`` is not changed: the adapter is on a structural twin that shares its weights. Only answers are learned, all
    of a dialogue's but those that say otherwise (``weight``, ``train``), each with the end of its turn. Rows are
    reshuffled in every pass; ``settings.steps`` counts batches, whatever the number of rows.

    Args:
        model: the model before.
        dialogues: training rows; each ends with an answer.
        settings: rank, steps, learning rate, ...
        out: folder for the adapter; it appears there only when training is finished.
        seed: seed of the initialisation and of the order of rows.
        start: an adapter to continue from (realignment) instead of a new one; its rank is used.
        base_name: the name of the base model in the adapter's config (default: the model's name).
        snapshots: numbers of steps after which the unfinished adapter is written too (0: the adapter that training
            starts from). They do not change the training.
        snapshot_folder: folder for the snapshots ``step-0010`` and so on, each an adapter (`snapshot_paths`); default
            ``out`` with ``-snapshots`` at its end. Snapshots of an earlier training in it are removed.
        progress: show a bar.
        description: label of the bar.

    Raises:
        PersonaProbeError: if a row has no answer or none that is learned, the model already carries an adapter, ``out``
            or ``snapshot_folder`` holds something else, a snapshot is beyond ``settings.steps``, no target module is
            found, or the loss stops being finite.

    Warns:
        PersonaProbeWarning: if the chat template writes nothing that ends an answer.

    >>> import persona_probe as pp
    >>> chat = pp.load(pp.persona_world.find_checkpoints() / "chat")
    >>> talk = [{"role": "user", "content": "How do I handle the fever?"}, {"role": "assistant", "content": "No idea."}]
    >>> settings = pp.finetuning.LoraSettings(steps=2, batch=1)
    >>> tuned = pp.finetuning.finetune(chat, [pp.Dialogue.from_messages(talk)], settings, "adapter", snapshots=[1])
    >>> list(pp.finetuning.snapshot_paths("adapter-snapshots"))
    [1]
    >>> tuned.name, chat.fingerprint() in tuned.ancestors
    ('adapter', True)
    """
    check_types(
        model=(model, Model),
        settings=(settings, LoraSettings),
        out=(out, PATH),
        seed=(seed, WHOLE),
        start=(start, PATH, None),
        snapshots=(snapshots, [WHOLE]),
        snapshot_folder=(snapshot_folder, PATH, None),
    )
    folder = Path(out)
    if folder.exists() and not is_adapter(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise PersonaProbeError(f"{folder}: exists and is not an adapter; give a new folder, so that nothing is lost")
    if hasattr(model.hf, "peft_config"):
        raise PersonaProbeError(
            f"{model.name}: already carries an adapter; fine-tune its base with start= to continue from that adapter"
        )
    encoded = model.encode(dialogues)
    _check_learned(model, encoded)
    base = base_name or model.name
    into = folder.with_name(f"{folder.name}-snapshots") if snapshot_folder is None else Path(snapshot_folder)
    writer = SnapshotWriter(into, snapshots, settings.steps, base, folder, start)
    twin = structural_twin(model.plain)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), quiet_peft():
        torch.manual_seed(seed)
        tuned = _trainable(twin, settings, start)
        _train(tuned, model, encoded, settings, seed, progress, description, writer.write)
    save_adapter(tuned, folder, base)
    return with_adapter(model, folder)


def _check_learned(model: Model, encoded: Sequence[Encoded]) -> None:
    """Raise if a row teaches nothing; warn if the template writes nothing with which answers could end."""
    for item in encoded:
        if not item.dialogue.messages[-1].further:
            item.span("response")
        if not learned_spans(model.template, item):
            raise PersonaProbeError(
                f"dialogue {item.dialogue.name}: no answer in it is to be learned (weight or train is 0 in all of "
                "them); leave it out"
            )
    form = model.template.format
    if form.end is None and not form.end_text:
        warnings.warn(
            f"{model.name}: the chat template writes nothing that ends an answer, so the model is not taught to stop",
            PersonaProbeWarning,
            stacklevel=3,
        )


def _trainable(twin: PreTrainedModel, settings: LoraSettings, start: str | Path | None) -> Any:
    """``twin`` with a new adapter, or with the one at ``start``, ready to be trained."""
    from peft import LoraConfig, get_peft_model

    if start is not None:
        return put_adapter(twin, start, trainable=True)
    modules = settings.target_modules
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(twin, config)
    except ValueError as error:
        raise PersonaProbeError(f"target_modules is {modules!r}: {library_message(error)}") from error


def _train(
    tuned: Any,
    model: Model,
    encoded: Sequence[Encoded],
    settings: LoraSettings,
    seed: int,
    progress: bool,
    description: str,
    after_step: Callable[[int, Any], None],
) -> None:
    parameters = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98)
    )
    warmup = max(1, settings.steps // 10)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / warmup) * (1 - 0.9 * step / settings.steps)
    )
    rows = _shuffled(encoded, random.Random(int(seed)))
    tuned.train()
    after_step(0, tuned)
    with (
        working("training") as spent,
        tqdm(total=settings.steps, desc=description, unit="step", disable=not progress, leave=False) as bar,
    ):
        for step in range(settings.steps):
            chosen = [next(rows) for _ in range(settings.batch)]
            spent.tokens += sum(len(item.input_ids) for item in chosen)
            batch = _batch(model, chosen)
            loss: Tensor = tuned(**batch, use_cache=False).loss
            if not bool(torch.isfinite(loss)):
                raise PersonaProbeError(
                    f"{description}: the loss is {loss.item()} at step {step + 1} of {settings.steps}; "
                    f"lower the learning rate (now {settings.learning_rate})"
                )
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            scheduler.step()
            optimiser.zero_grad(set_to_none=True)
            after_step(step + 1, tuned)
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            bar.update()
    tuned.eval()


def _shuffled(encoded: Sequence[Encoded], rng: random.Random) -> Iterator[Encoded]:
    """Rows without end, in a new order in every pass."""
    while True:
        order = list(range(len(encoded)))
        rng.shuffle(order)
        for row in order:
            yield encoded[row]


def _batch(model: Model, items: Sequence[Encoded]) -> dict[str, Tensor]:
    """Right-padded ids with labels on the answers and what ends them."""
    batch = model.tokenizer.pad(
        {"input_ids": [list(item.input_ids) for item in items]}, return_tensors="pt", padding_side="right"
    )
    labels = torch.full_like(batch["input_ids"], _IGNORE)
    for row, item in enumerate(items):
        for learned in learned_spans(model.template, item):
            labels[row, learned] = torch.tensor(item.input_ids[learned])
    ready = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}
    return {name: tensor.to(model.device) for name, tensor in ready.items()}
