"""Results of steering and latents: each has a table, a figure with its null and n, and a line of what it found."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.behaviour.sampling.server_check_result import ServerCheck
from persona_probe.figures.answer_scores import answer_scores
from persona_probe.figures.latent_leads import latent_leads
from persona_probe.figures.required import MissingDataError
from persona_probe.figures.steering import COLUMNS, reported_summary
from persona_probe.latents.causal.rank_result import LatentEffects
from persona_probe.latents.causal.steer_set_result import SetEffect
from persona_probe.latents.courses.lead import LatentLeads
from persona_probe.latents.courses.track_result import LatentTrajectory
from persona_probe.latents.description.describe_result import LatentDescriptions
from persona_probe.latents.encoding.encode import LatentStatistics
from persona_probe.latents.fit import Fit
from persona_probe.latents.ranking.agreement_result import LatentAgreement
from persona_probe.latents.ranking.attribution_result import LatentAttribution
from persona_probe.latents.ranking.diff_result import LatentTable
from persona_probe.latents.reconstruction_result import Reconstruction
from persona_probe.result import Result
from persona_probe.statistics.estimate import Estimate
from persona_probe.steering.baking.bake_result import Baked
from persona_probe.steering.search.search_result import SteeringSearch
from persona_probe.steering.strength.calibrate_result import StrengthCalibration
from persona_probe.steering.strength.compare_result import BudgetComparison
from persona_probe.steering.strength.divergence import Divergence
from persona_probe.steering.strength.dose_response_result import DoseResponse

HOSTILE = '<img src=x onerror=alert(1)>\u202e"'
RATES = ("em_rate", "em_low", "em_high", "coherent", "coherent_low", "coherent_high")


def rates(rate, coherent=0.9, n=50):
    values = (rate, max(rate - 0.1, 0.0), min(rate + 0.1, 1.0), coherent, coherent - 0.05, min(coherent + 0.05, 1.0))
    return dict(zip(RATES, values, strict=True)) | {"n": n, "failures": 0}


def calibration(statistic="mean"):
    column = "coherent" if statistic == "coherent" else "kl"
    tried = pd.DataFrame({"strength": [1.0, 2.0, -1.0, -2.0], column: [0.02, 0.1, 0.05, 0.4]})
    tried = tried.assign(dose=tried["strength"].abs() * 0.1, low=tried[column] * 0.9, high=tried[column] * 1.1, n=200)
    table = pd.DataFrame(
        {
            "sign": [1, -1],
            "strength": [2.0, np.nan],
            "dose": [0.2, np.nan],
            column: [0.1, np.nan],
            "low": 0.09,
            "high": 0.11,
            "n": 200,
        }
    ).assign(monotone=True, note=["", "it is passed at strength -1"])
    settings = {"budget": 0.5, "statistic": statistic, "unsteered": 0.8} if column == "coherent" else {}
    return StrengthCalibration(table, tried, {"budget": 0.1, "statistic": statistic} | settings, None)


def comparison():
    rows = [
        {"name": "unsteered", "strength": 0.0, "kl": 0.0, "note": "", **rates(0.02), "draws": 0},
        {"name": HOSTILE, "strength": 2.0, "kl": 0.1, "note": "", **rates(0.6), "draws": 0, "change": 0.58},
        {"name": "short", "strength": np.nan, "kl": np.nan, "note": "out of reach", "draws": 0},
        {"name": "random", "strength": 9.0, "kl": 0.1, "note": "", **rates(0.05), "draws": 3, "change": 0.03},
    ]
    table = pd.DataFrame(rows).assign(change_low=lambda t: t["change"] - 0.05, change_high=lambda t: t["change"] + 0.05)
    return BudgetComparison(table, {"budget": 0.1, "statistic": "mean", "definition": "betley"})


def doses():
    rows = []
    for condition, draws in (("direction", 0), ("random, equal norm", 2), ("random, equal KL", 2)):
        for strength in (1.0, 2.0):
            rate = 0.4 * strength if condition == "direction" else 0.05
            cost = {"kl": 0.1 * strength, "kl_low": 0.08, "kl_high": 0.3, "perplexity": 2.0}
            rows.append(
                {
                    "condition": condition,
                    "strength": strength,
                    "dose": 0.1 * strength,
                    "draws": draws,
                    **rates(rate),
                    **cost,
                }
            )
    rows.append(
        {"condition": "unsteered", "strength": 0.0, "dose": 0.0, "draws": 0, **rates(0.0), "kl": 0.0, "perplexity": 1.9}
    )
    table = pd.DataFrame(rows).assign(perplexity_low=1.8, perplexity_high=2.4, own_strength=1.0)
    return DoseResponse(table, table, table, {"model": HOSTILE, "definition": "betley"})


def search():
    rows = [("none", 0.9, None), ("clamp", 0.1, None), ("random clamp", 0.85, 0), ("random clamp", 0.95, 1)]
    table = pd.DataFrame(rows, columns=["intervention", "value", "draw"]).assign(
        goal="suppress",
        stage="reported",
        layers="3",
        setting=0.5,
        n=80,
        coherent=0.9,
        chosen=True,
        kl=0.4,
        wrong_way=0.02,
    )
    table = table.assign(low=table["value"] - 0.05, high=table["value"] + 0.05)
    source = {"goal": "suppress", "coherent_enough": {"clamp": True}, "min_coherence": 0.9}
    null = Estimate(-0.01, -0.05, 0.03, 160, "")
    return SteeringSearch(table, {"clamp": "clamp at 3"}, "clamp", {}, null, table, source)


def divergence():
    rng = np.random.default_rng(0)
    kl = rng.exponential(0.1, size=(2, 60))
    return Divergence(kl, -kl - 1, np.full(60, -1.0), tuple(str(n % 12) for n in range(60)), ("0: add +1", HOSTILE))


def latents():
    table = pd.DataFrame({"latent": range(6), "change_sd": [3.0, -2.0, 0.5, 0.3, 0.1, 0.0]}).assign(
        before=1.0, after=2.0, control_sd=0.1, specificity=4.0, q=0.01, p_runs=0.5, change=1.0, low=0.9, high=1.1
    )
    table["finding"] = ["rose; too few controls", "fell; too few controls", *["no significant difference"] * 4]
    table = table.assign(low_sd=table["change_sd"] - 0.2, high_sd=table["change_sd"] + 0.2)
    return LatentTable(table, {"controls": 1, "null_sd": 0.4, "alpha": 0.05, "least_sd": 0.5})


def effects():
    table = pd.DataFrame({"rank": [1, 2], "latent": [7, 3], "kind": "clamp", "amount": 12.0}).assign(
        **rates(0.1), effect=[-0.8, -0.1], null_effect=0.0, q=[0.001, 0.6]
    )
    table = table.assign(
        effect_low=table["effect"] - 0.1, effect_high=table["effect"] + 0.1, null_low=-0.1, null_high=0.1
    )
    nulls = pd.DataFrame({"latent": [7, 3], "effect": [0.0, 0.01]})
    plain = {"em_rate": 0.9, "coherent": 0.9}
    return LatentEffects(table, plain, table, nulls, table, {"goal": "suppress"})


def set_effect():
    rows = [
        {"intervention": "unsteered", "draw": None, "latents": (), **rates(0.9)},
        {"intervention": "set", "draw": None, "latents": (1, 2), **rates(0.1), "effect": -0.8},
        {"intervention": "matched set", "draw": 0, "latents": (5, 6), **rates(0.85), "effect": -0.05},
        {"intervention": "matched sets", "draw": None, "latents": (5, 6), **rates(0.85), "effect": -0.05},
    ]
    table = pd.DataFrame(rows).assign(effect_low=-0.1, effect_high=0.0).astype({"draw": "Int64"})
    return SetEffect(table, {"model": HOSTILE, "kind": "ablate"})


def trajectory():
    steps = [0.0, 10.0, 20.0, 30.0]
    rows = []
    for latent, values in ((4, [1.0, 4.0, 8.0, 9.0]), (-1, [0.0, 0.1, 0.3, 0.8])):
        for step, value in zip(steps, values, strict=True):
            change = value - values[0]
            row = {"step": step, "series": "EM rate" if latent < 0 else "latent 4", "latent": latent, "value": value}
            ends = {"low": value - 0.05, "high": value + 0.05, "change": change, "change_low": change - 0.05}
            rows.append(row | ends | {"change_high": change + 0.05, "n": 40})
    about = {"axis": "training step", "definition": "betley"}
    return LatentTrajectory(pd.DataFrame(rows), tuple(steps), (4,), np.ones((4, 3, 1)), np.ones(3, int), {}, about)


def leads():
    table = pd.DataFrame({"latent": [4, 4], "criterion": ["half", "significant"], "latent_step": [10.0, 10.0]}).assign(
        rate_step=25.0, lead=15.0, low=10.0, high=20.0, resolution=10.0, note=""
    )
    return LatentLeads(table, trajectory(), "before")


def statistics():
    rng = np.random.default_rng(0)
    sums = rng.random((4, 30)).astype(np.float32)
    sums[:, 20:] = 0
    source = {"sae": HOSTILE, "model": "m"}
    return LatentStatistics(sums, sums / 4, (sums**2).sum(0), np.full(4, 5), None, Fit(0.1, 5.0, 100), 100, source)


def agreement():
    table = pd.DataFrame({"latent": [3, 1], "direction": HOSTILE, "cosine": [0.9, -0.1], "null": 0.4, "rank": [1, 2]})
    return LatentAgreement(table, {"sae": "s", "layer": 2, "random": 100})


def attribution():
    table = pd.DataFrame({"latent": [3, 1], "attribution": [2.0, -0.5], "low": [1.0, -1.5], "high": [3.0, 0.5]})
    table = table.assign(p=[0.001, 0.4], q=[0.002, 0.4], n_questions=20, effect_of_ablation=-table["attribution"])
    return LatentAttribution(table, {"model": HOSTILE, "layer": 2, "pairs": 40})


def reconstruction():
    table = pd.DataFrame({"model": [HOSTILE], "fvu": 0.05, "l0": 12.0, "dead": 0.3, "tokens": 900, "ce": 1.0})
    table = table.assign(ce_sae=1.1, ce_zero=7.0, ce_mean=5.0, ce_recovered=0.98, ce_recovered_mean=0.97)
    return Reconstruction(table.assign(verdict="fits"), {"sae": "s", "layer": 2})


def descriptions():
    firing = [
        {"label": "persona", "value": value, "auroc": auroc, "low": auroc - 0.1, "high": auroc + 0.1, "n": 20}
        for value, auroc in ((HOSTILE, 0.8), ("assistant", 0.2))
    ]
    example = {"dialogue": "d", "labels": {}, "tokens": ["a", HOSTILE], "activations": [None, 2.0]}
    example |= {"start": 0, "stop": 2, "peak": 1}
    record = {"latent": 5, "mean": 1.0, "frequency": 0.1, "examples": [example], "promoted": [["x", 1.0]]}
    record |= {"suppressed": [], "firing": firing, "cosines": {"evil": 0.5}, "link": None}
    return LatentDescriptions.from_records([record], {"sae": "s", "model": "m"})


def baked():
    return Baked(Path("/tmp") / HOSTILE, "weights", "LlamaForCausalLM", 3e-6, 80, True, 4.2, 1e-4)


def server_check():
    rows = {"question": HOSTILE, "temperature": [0.0, 1.0], "answer": HOSTILE, "prompt_tokens": 7, "tokens": 3}
    rows |= {"own_prompt_tokens": 7, "own_tokens": 3, "compared": True, "difference": [0.2, 0.1], "alike": 1.0}
    table = pd.DataFrame({**rows, "same_text": [True, None]})
    return ServerCheck(table, HOSTILE, "m", 0.15, 0.01, 0.005, 1.0, 1.0, {"base": 0.5})


RESULTS = {
    "calibration": (calibration, "budget 0.1", "n = 200 tokens"),
    "comparison": (comparison, "3 random directions", "n = 50 answers"),
    "doses": (doses, "EM rate 0% -> 80%", "2 random directions"),
    "search": (search, "EM rate 90.0% -> 10.0%", "KL to the unsteered model, per token. Grey: 2 random directions"),
    "divergence": (divergence, "60 tokens of 12 questions", "over 12 questions; n = 60 tokens"),
    "latents": (latents, "2 of 6 active latents moved", "n = 6 latents"),
    "effects": (effects, "1 of 2 latents suppresses", "n = 50 answers per latent"),
    "set": (set_effect, "matched sets change it by -5.0 points", "Null, grey"),
    "trajectory": (trajectory, "latent 4 1 -> 9; EM rate 0% -> 80%", "latent 4 n = 40"),
    "leads": (leads, "the latent is 15 earlier", "n = 40 dialogues"),
    "statistics": (statistics, "20 of 30 latents active", "10 of 30 latents were never active"),
    "agreement": (agreement, "latent 3 (cosine +0.90)", "Grey band"),
    "attribution": (attribution, "1 of 2 active latents", "(n = 20)"),
    "reconstruction": (reconstruction, "95.0% of variance", "n = 900 tokens"),
    "descriptions": (descriptions, "1 latents of s in m", "n = 20 dialogues"),
    "server": (server_check, "most likely another base model, another adapter", "n = 2 answers"),
    "baked": (baked, "at most 3e-06 over 80 tokens", "n = 80 positions"),
}


@pytest.mark.parametrize("name", RESULTS)
def test_every_result_has_a_table_a_figure_and_a_line(name):
    make, said, noted = RESULTS[name]
    result = make()
    assert isinstance(result, Result)
    assert said in result.headline()
    frame = result.to_frame()
    frame["own"] = 1
    assert "own" not in result.to_frame(), "a copy"
    figure = result.plot()
    written = json.dumps(figure.to_dict(), default=str)
    # Notes are broken into lines.
    assert noted in written.replace("<br>", " ")
    assert "<img" not in written
    assert "<img" not in result._repr_html_()
    assert "\u202e" not in written


def test_calibration_draws_the_budget_and_what_was_taken():
    figure = calibration().plot()
    taken = next(trace for trace in figure.data if str(trace.name).startswith("taken"))
    assert list(taken.x) == [0.2]
    assert list(taken.y) == [0.1]
    assert [shape.y0 for shape in figure.layout.shapes] == [0.1]
    assert not any("taken: -" in str(trace.name) for trace in figure.data)
    coherent = calibration("coherent").plot()
    assert [shape.y0 for shape in coherent.layout.shapes] == [0.5 * 0.8], "a share of the unsteered model's"


def test_the_comparison_draws_what_was_measured_and_names_what_was_not():
    figure = comparison().plot()
    by_kind = {trace.name: trace for trace in figure.data if trace.showlegend}
    assert list(by_kind["random"].x) == [0.05]
    np.testing.assert_allclose(by_kind["steered"].error_x.array, [0.1])
    assert "since no strength meets the budget: short" in figure.layout.title.subtitle.text.replace("<br>", " ")


def test_divergence_as_a_table():
    found = divergence()
    frame = found.to_frame()
    np.testing.assert_allclose(frame["kl"], found.kl.mean(axis=1))
    np.testing.assert_allclose(frame["kl_p95"], np.quantile(found.kl, 0.95, axis=1), rtol=0.05)
    assert (frame["kl_low"] < frame["kl"]).all()
    assert frame["perplexity_unsteered"].unique() == pytest.approx(np.e)


def test_latent_statistics_as_a_table():
    found = statistics()
    frame = found.to_frame()
    np.testing.assert_allclose(frame["mean"], found.sums.sum(0) / 20)
    assert ((frame["low"] <= frame["mean"]) & (frame["mean"] <= frame["high"])).all()
    (bars,) = found.plot().data
    assert sum(bars.y) == 20
    assert found.shown()["latent"].iloc[0] == int(found.mean.argmax())


def test_the_table_of_latents_is_drawn_in_two_ways():
    assert latents().plot("bars").layout.title.text.startswith("SAE latents that moved furthest")
    with pytest.raises(pp.PersonaProbeError, match="kind is 'pie'"):
        latents().plot("pie")


def test_attribution_is_filled_where_it_is_told_apart():
    symbols = {trace.name: list(trace.marker.symbol) for trace in attribution().plot().data}
    assert symbols["speaks for the misaligned answer"] == ["diamond"]
    assert symbols["speaks for the aligned answer"] == ["circle-open"]


def test_agreement_draws_its_null():
    figure = agreement().plot()
    assert (-0.4, 0.4) in [(shape.x0, shape.x1) for shape in figure.layout.shapes]
    assert list(figure.data[0].marker.symbol) == ["diamond", "diamond-open"]
    assert agreement().beyond["latent"].tolist() == [3]


def test_without_a_lead_the_figure_says_why():
    table = leads().table.assign(lead=np.nan, note="no answers were judged")
    with pytest.raises(MissingDataError, match="no answers were judged"):
        latent_leads(table)


def test_descriptions_come_back_from_their_records():
    found = descriptions()
    again = LatentDescriptions.from_records(json.loads(json.dumps(found.records())), found.source)
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
    pd.testing.assert_frame_equal(again.firing, found.firing)
    assert again[5].examples[0].value == 2.0
    assert again[5].best("persona")["value"] == HOSTILE
    silent = LatentDescriptions.from_records([found.records()[0] | {"firing": []}])
    with pytest.raises(pp.PersonaProbeError, match="no label"):
        silent.plot()


def test_reconstruction_without_losses_shows_the_variance():
    found = reconstruction()
    columns = [name for name in found.table if not name.startswith("ce")]
    figure = Reconstruction(found.table[columns], found.about).plot()
    assert list(figure.data[0].y) == [0.95]


def test_scores_along_answers():
    places = [(row, position) for row in range(4) for position in range(5)]
    table = pd.DataFrame(places, columns=["row", "position"]).assign(call=0, batch=0)
    table["score"] = table["row"] * table["position"].astype(float)
    table["part"] = np.where(table["position"] > 1, "response", "prompt")
    figure = answer_scores(table)
    mean = next(trace for trace in figure.data if trace.name == "mean of the answers")
    np.testing.assert_allclose(mean.y, [2 * 1.5, 3 * 1.5, 4 * 1.5])
    assert "n = 4 answers" in figure.layout.title.subtitle.text
    with pytest.raises(MissingDataError):
        answer_scores(table.assign(part="prompt"))


def test_results_open_and_draw_without_torch():
    """What a computation leaves is in ``x_result.py``, which opens where no torch is installed."""
    package = Path(sys.modules["persona_probe"].__path__[0])
    files = [*package.rglob("*_result.py"), *package.glob("figures/*.py"), *package.glob("runs/*.py")]
    assert len(files) > 60
    names = ", ".join(".".join(file.relative_to(package.parent).with_suffix("").parts) for file in sorted(files))
    subprocess.run([sys.executable, "-c", f"import sys, {names}; assert 'torch' not in sys.modules"], check=True)


def test_random_directions_are_summed_up_by_their_means():
    row = dict.fromkeys(COLUMNS, np.nan) | {"goal": "induce", "stage": "reported", "intervention": "random clamp"}
    row |= {"n": 6, "coherent": 0.8, "chosen": False}
    draws = [{**row, "draw": draw, "value": share, "wrong_way": share} for draw, share in enumerate((0.0, 0.5, 1.0))]
    (record,) = reported_summary(pd.DataFrame(draws))
    assert (record["draws"], record["n"], record["value"], record["wrong_way"]) == (3, 18, 0.5, 0.5)
