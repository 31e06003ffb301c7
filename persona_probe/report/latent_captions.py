"""The captions of figures of SAE latents, with a run's own numbers in them."""

from __future__ import annotations

from persona_probe.figures.latents import DRAWN
from persona_probe.figures.text import counted
from persona_probe.report.captions import span_of, table_of
from persona_probe.runs.record import RunRecord


def latents(run: RunRecord) -> str:
    """That of the latents that moved furthest."""
    null = (
        "Null, squares: the same latent's change from before to the benign control."
        if _beside_control(run)
        else "There was no control, so the null is no change: any fine-tuning might move them as far."
    )
    return (
        f"Change of the mean activation of SAE latents from before to after, on the same texts, in standard deviations "
        f"over dialogues; of n = {counted(len(table_of(run, 'latents')))} latents those that moved furthest up and "
        "down (hatched). Whiskers: 95 % intervals of the change over questions (the standard deviation is taken as "
        f"given). {null}"
    )


def _beside_control(run: RunRecord) -> bool:
    table = table_of(run, "latents")
    return "control_sd" in table and bool(table["control_sd"].notna().any())


def latents_control(run: RunRecord) -> str:
    """That of latents beside the control."""
    count = len(table_of(run, "latents"))
    drawn = (
        f"the {counted(DRAWN)} of {counted(count)} that moved furthest" if count > DRAWN else f"all {counted(count)}"
    )
    opening = f"One point a latent ({drawn}; points, so no intervals)"
    if not _beside_control(run):
        return (
            f"{opening}: its mean activation before and after. On the dotted line nothing moved. There was no control, "
            "so what any fine-tuning moves is not told apart."
        )
    return (
        f"{opening}: how far it moved to after, and how far to the benign control, the null. On the dotted line both "
        "are the same. What moves as far under benign training tells nothing of the trait."
    )


def latent_effects(run: RunRecord) -> str:
    """That of steering single latents."""
    return (
        "Change of the EM rate when single latents are steered "
        f"({span_of(table_of(run, 'latent_effects'), 'n', 'judged answers a latent')}). Whiskers: 95 % intervals. "
        "Null, grey: the same displacement along the decoder rows of random latents that match in activity."
    )


def latent_course(run: RunRecord) -> str:
    """That of latents along training."""
    return (
        "Mean activation of the latents that moved furthest, and the EM rate, at snapshots along narrow training. "
        "Latents, chosen on development questions, are read on the before model's own answers to the reported ones, "
        "all snapshots on the same texts. Whiskers: 95 % intervals over questions, of one training run; "
        f"{span_of(table_of(run, 'latent_course'), 'n', 'answers a point')}. The null is the first point: the model "
        "before."
    )


def latent_realignment(run: RunRecord) -> str:
    """That of latents under realignment."""
    return (
        "The same latents and the EM rate after fine-tuning on n benign examples, the same number of steps for every n "
        "above 0; n = 0, the null, is the model after narrow training. Whiskers: 95 % intervals over questions; "
        f"{span_of(table_of(run, 'latent_realignment'), 'n', 'answers a point')}."
    )
