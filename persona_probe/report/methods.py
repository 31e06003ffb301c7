"""A methods paragraph ready to paste: plain text, written from a run's own settings and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from persona_probe.figures.text import counted, signed
from persona_probe.report.captions import table_of
from persona_probe.report.facts import facts_of
from persona_probe.report.methods_behaviour import tell_behaviour
from persona_probe.report.methods_models import tell_models
from persona_probe.report.readings import lookup, read_number
from persona_probe.report.recorded import joined, number_of, one_line, settings_of
from persona_probe.runs.record import RunRecord

Told = list[str]
_NULLS = {
    "isotropic_sd": "isotropic random directions",
    "shuffled_sd": "directions from shuffled labels",
    "other_traits_sd": "other traits' directions",
}
"""What stands beside a shift, by the column of the table that holds it."""


def methods_text(run: RunRecord) -> str:
    """The methods of a run, in a few paragraphs of plain text; what the run did not record is left out."""
    makers: tuple[Callable[[RunRecord], Told], ...] = (
        tell_models,
        tell_behaviour,
        _directions,
        _probes,
        _steering,
        _latents,
        _realignment,
        _software,
    )
    return "\n\n".join(" ".join(told) for maker in makers if (told := maker(run)))


def _directions(run: RunRecord) -> Told:
    layer = read_number(run.results, "amplification", "layer")
    if layer is None:
        return []
    told = [
        "The persona direction is the mean difference, per layer, between the before model's activations on the same "
        "answers under a trait-eliciting and a default system prompt, at the positions that predict the response. "
        f"Layer {layer:.0f} (output of the block, counted from 0) was chosen on development {facts_of(run).units}."
    ]
    random = lookup(run.manifest, "config", "random_directions")
    shift, low, high = (
        read_number(run.results, "amplification", name) for name in ("shift_sd", "shift_sd_low", "shift_sd_high")
    )
    ends = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    moved = "" if shift is None else f" It was {signed(shift)}{ends} SD."
    control = read_number(run.results, "amplification", "control_shift_sd")
    moved += "" if control is None else f" The control's was {signed(control)} SD."
    nulls = ["the control"] if facts_of(run).control else []
    nulls += [f"{counted(random)} random directions with the covariance of the activations"] if random else []
    table = table_of(run, "amplification")
    nulls += [told for column, told in _NULLS.items() if column in table and table[column].notna().any()]
    told.append(
        "Amplification is the change of the projection of the same texts from before to after, in standard deviations "
        f"over the before model's answers to development questions.{moved} Its nulls are {joined(nulls)}; p is "
        "corrected over layers and directions."
    )
    return told


def _probes(run: RunRecord) -> Told:
    layer, n = read_number(run.results, "probe", "layer"), read_number(run.results, "probe", "n")
    if layer is None:
        return []
    over = "" if n is None else f" ({counted(n)} answers)"
    return [
        f"Linear probes (logistic, at every layer; layer {layer:.0f} is reported) were trained and tested on different "
        f"{facts_of(run).units}{over}, with scalers fitted inside the folds. Their nulls are token embeddings, a "
        "bag of tokens and shuffled labels."
    ]


def _steering(run: RunRecord) -> Told:
    about = settings_of(run, "steering")
    layers = [one_line(lookup(run.results, "steer", f"{goal}_layers")) for goal in ("induce", "suppress")]
    if not about or lookup(run.results, "steer", "induce_em_rate") is None:
        return []
    return [
        f"Interventions ({one_line(about.get('kinds') or ())}) acted on the positions that predict the answer (the "
        "last prompt token and the answer but its last token). Layers and strength of each kind were chosen on "
        f"development questions among settings that kept at least {number_of(about.get('min_coherence'))} of the "
        f"answers coherent (inducing: layers {layers[0]}; suppressing: layers {layers[1]}) and reported on held-out "
        f"ones, beside {counted(about.get('random_directions'))} random directions moved by the same displacement."
    ]


def _latents(run: RunRecord) -> Told:
    layer, moved = read_number(run.results, "latents", "layer"), read_number(run.results, "latents", "moved")
    if layer is None or moved is None:
        return []
    bar = (
        "where it moved further than any latent does under the control"
        if facts_of(run).control
        else "where its change is told apart from zero (there was no control, so any fine-tuning might do the same)"
    )
    steered = " Latents were steered beside random latents of matching activity."
    return [
        f"SAE latents ({one_line(lookup(run.results, 'latents', 'sae'))}, layer {layer:.0f}) were compared on the same "
        f"texts before and after; one counts as moved only {bar}, at a false-discovery rate of 0.05 "
        f"({counted(moved)} did).{'' if table_of(run, 'latent_effects').empty else steered}"
    ]


def _realignment(run: RunRecord) -> Told:
    about = settings_of(run, "realignment")
    if not facts_of(run).realigned or not about or not isinstance(about.get("examples"), list):
        return []
    return [
        f"Realignment fine-tuned the after model on n = {', '.join(map(counted, about['examples']))} benign examples, "
        f"{counted(about.get('steps'))} steps for every n above 0, and was measured {facts_of(run).left_over}."
    ]


def _software(run: RunRecord) -> Told:
    versions = run.manifest.get("versions")
    seeds = run.manifest.get("seeds")
    told = []
    if isinstance(seeds, Mapping) and seeds:
        told.append(f"Seeds: {', '.join(f'{one_line(name)} {one_line(seed)}' for name, seed in seeds.items())}.")
        runs = run.tables["amplification"].get("n_runs") if "amplification" in run.tables else None
        if runs is not None and (runs == 1).all():
            told.append("There is one fine-tuning run a condition, so intervals do not hold how runs differ.")
    if isinstance(versions, Mapping) and versions:
        told.append(
            f"Software: {', '.join(f'{one_line(name)} {one_line(number)}' for name, number in versions.items())}."
        )
    return told
