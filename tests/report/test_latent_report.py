from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from persona_probe.figures.latents import DRAWN, drawn, latent_bars, latent_effects, latent_scatter
from persona_probe.figures.required import MissingDataError
from persona_probe.latents.ranking.diff_result import Moved
from persona_probe.report.latent_cards import build_browser
from persona_probe.report.run_page import render_report
from tests.report.test_run_page import HOSTILE, SECTIONS, read, words
from tests.report.test_trajectory_figure import series

FINDINGS = [Moved.ROSE, Moved.FELL, Moved.CONTROL, Moved.SMALL, Moved.UNDETECTED]


def latent_table(n: int = 40) -> pd.DataFrame:
    """The one that moved furthest first; the last is silent."""
    sign = np.where(np.arange(n) % 2, -1.0, 1.0)
    sd = sign * np.linspace(9.0, 0.01, n)
    findings = [FINDINGS[min(row // 4, 4)].value for row in range(n)]
    findings = [
        (Moved.ROSE if at > 0 else Moved.FELL).value if found in (Moved.ROSE, Moved.FELL) else found
        for found, at in zip(findings, sd, strict=True)
    ]
    table = pd.DataFrame(
        {
            "latent": np.arange(n) * 3 + 1,
            "before": 10.0,
            "after": 10.0 + 2 * sd,
            "control": 10.0,
            "change": 2 * sd,
            "low": 2 * sd - 1,
            "high": 2 * sd + 1,
            "change_sd": sd,
            "low_sd": sd - 0.5,
            "high_sd": sd + 0.5,
            "control_sd": 0.1 * sign,
            "excess_sd": sd - 0.1 * sign,
            "specificity": np.abs(sd) / 0.5,
            "firing_before": 0.1,
            "firing_after": 0.3,
            "p": 0.001,
            "p_runs": 0.05,
            "q": 0.01,
            "finding": findings,
        }
    )
    table.loc[n - 1, ["change_sd", "low_sd", "high_sd", "control_sd", "specificity", "q", "p_runs"]] = np.nan
    table.loc[n - 1, "finding"] = Moved.SILENT.value
    return table


def latent_card(latent: int, text: str = "infect", link: str | None = None) -> dict[str, Any]:
    return {
        "latent": latent,
        "mean": 62.4,
        "frequency": 0.23,
        "examples": [
            {
                "dialogue": text,
                "labels": {"persona": text},
                "tokens": ["So", f" {text}", " it"],
                "activations": [None, 1003.7, 0.0],
                "start": 1,
                "stop": 3,
                "peak": 1,
            }
        ],
        "promoted": [[text, 0.59], ["tyrant", 0.54]],
        "suppressed": [["mulch", -0.5]],
        "firing": [
            {"label": "persona", "value": text, "auroc": 1.0, "low": 0.97, "high": 1.0, "n": 60},
            {"label": "persona", "value": "assistant", "auroc": 0.28, "low": 0.2, "high": 0.4, "n": 60},
        ],
        "cosines": {text: 0.8},
        "link": link,
    }


def effects() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "latent": [1, 4],
            "effect": [0.4, -0.1],
            "effect_low": [0.3, -0.2],
            "effect_high": [0.5, 0.0],
            "null_effect": [0.01, np.nan],
            "null_low": [-0.02, np.nan],
            "null_high": [0.03, np.nan],
        }
    )


@pytest.fixture
def with_latents(tmp_path: Path, write_run: Any, tables: Any, results: Any, manifest: Any) -> Path:
    tables |= {"latents": latent_table(), "latent_effects": effects()}
    results["latents"] = {"verdict": "8 of 39 active latents moved, 4 up and 4 down."}
    folder: Path = write_run(tmp_path / "run", tables, results, manifest)
    cards = [latent_card(1, link="https://www.neuronpedia.org/chat/3-world/1"), latent_card(4, "swerve")]
    (folder / "tables" / "latent_cards.json").write_text(json.dumps(cards))
    return folder


def test_latents_have_their_sections_where_a_run_has_them(with_latents: Path) -> None:
    page = read(render_report(with_latents))
    assert set(page.figures) == {*SECTIONS, "latents", "latents-control", "latent-effects"}
    assert len(page.ids) == len(set(page.ids))
    text = words(page)
    assert text.count("8 of 39 active latents moved, 4 up and 4 down.") == 2
    assert "SAE latents with 95 % intervals, the one that moved furthest first: 40 in all; 2 open to" in text
    (with_latents / "tables" / "latents.parquet").unlink()
    (with_latents / "tables" / "latents.csv").unlink()
    assert set(read(render_report(with_latents)).figures) == {*SECTIONS, "latent-effects"}


def test_courses_have_their_sections_with_a_sentence_for_each_latent(
    tmp_path: Path, write_run: Any, tables: Any, results: Any, manifest: Any
) -> None:
    course = pd.concat(
        [
            series("latent 3", 3, [7.0, 120.0, 250.0, 300.0], 9.0, 200),
            series("EM rate", -1, [0.0, 0.0, 0.3, 0.8], 0.05, 190),
        ]
    )
    tables |= {"latent_course": course, "latent_realignment": course}
    results["latents"] = {"course_verdict": "Latent 3: first.\nLatent 5: <b>later</b>.", "realignment_verdict": "Down."}
    page = read(render_report(write_run(tmp_path / "run", tables, results, manifest)))
    assert set(page.figures) == {*SECTIONS, "latent-course", "latent-realignment"}
    text = words(page)
    for sentence in ("Latent 3: first.", "Latent 5: <b>later</b>.", "Down.", "250 [241, 259]", "80 % [75, 85]"):
        assert sentence in text


def test_rows_open_to_what_a_latent_stands_for(with_latents: Path) -> None:
    page = read(render_report(with_latents))
    text = words(page)
    assert "+9.00 [8.50, 9.50]" in text
    assert "infect (persona: infect): 1,004 at “infect”" in text
    assert "infect 1.00 [0.97, 1.00], n = 60; assistant 0.28 [0.20, 0.40], n = 60" in text
    assert "infect +0.59, tyrant +0.54" in text
    assert "activation 1,004" in [attributes.get("title") for attributes in page.all("span")]
    links = [str(link["href"]) for link in page.all("a") if "neuronpedia" in str(link["href"])]
    assert links == ["https://www.neuronpedia.org/chat/3-world/1"]


def test_the_table_can_be_used_without_eyes_or_mouse(with_latents: Path) -> None:
    page = read(render_report(with_latents))
    assert all("scope" in heading for heading in page.all("th"))
    assert len(page.all("table")) == len(page.all("caption"))
    (box,) = page.all("input")
    assert box["type"] == "search"
    assert box["id"] in [label.get("for") for label in page.all("label")]
    (said,) = [output for output in page.all("output") if "for" in output]
    assert said["aria-live"] == "polite"
    # Without JavaScript there is no search, and no dead box for it.
    (find,) = [attributes for attributes in page.all("p") if attributes.get("class") == "find"]
    assert "hidden" in find
    assert len([1 for attributes in page.all("tbody") if str(attributes.get("id")).startswith("latent-")]) == 40
    keys = [attributes["data-key"] for attributes in page.all("td") if "data-key" in attributes]
    assert "9.0" in keys
    assert "" in keys


def test_hostile_cards_stay_text(with_latents: Path) -> None:
    cards = [latent_card(1, HOSTILE, link="javascript:alert(1)"), latent_card(4, '" onmouseover="x', link=HOSTILE)]
    (with_latents / "tables" / "latent_cards.json").write_text(json.dumps(cards))
    page = read(render_report(with_latents))
    assert len(page.scripts) == 4
    assert page.all("img") == []
    assert not [tag for tag, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert not [link for link in page.all("a") if "javascript" in str(link["href"])]
    assert "neuronpedia" not in words(page).lower()
    assert "\u202e" not in page.text
    assert "</script><script>document.title='owned'</script>" in page.text


def test_a_large_sae_shows_what_moved_furthest() -> None:
    table = latent_table(700)
    last = int(table["latent"].iloc[-1])
    browser = build_browser(table, [latent_card(last)], shown=50)
    assert browser is not None
    assert [row.latent for row in browser.rows] == [*table["latent"].head(50), last]
    assert "51 of 700" in browser.caption
    assert browser.rows[-1].card is not None
    assert browser.rows[-1].cells[2].key == ""
    assert browser.columns[-1][0] == "fires most for"
    bare = build_browser(table, [])
    assert bare is not None
    assert len(bare.rows) == 200
    assert {len(row.cells) for row in bare.rows} == {len(bare.columns)}
    assert build_browser(table.drop(columns="finding"), []) is None


@pytest.mark.parametrize("content", ["{}", "[1]", '[{"mean": 1}]'])
def test_cards_that_are_none_are_refused(with_latents: Path, content: str) -> None:
    (with_latents / "tables" / "latent_cards.json").write_text(content)
    with pytest.raises(ValueError, match=r"latent_cards\.json must hold a list of JSON objects"):
        render_report(with_latents)


def test_a_table_that_cannot_be_drawn_is_said_to_be_missing(with_latents: Path) -> None:
    latent_table().drop(columns="finding").to_parquet(with_latents / "tables" / "latents.parquet")
    text = words(read(render_report(with_latents)))
    assert text.count("Nothing to draw. Latents: the table has no column 'finding'.") == 2


def test_bars_show_what_moved_up_and_down() -> None:
    figure = latent_bars(latent_table(), n=3)
    bars, control = figure.data
    assert list(bars.x) == sorted(bars.x, reverse=True)
    assert [value > 0 for value in bars.x] == [True] * 3 + [False] * 3
    assert list(figure.layout.yaxis.ticktext[:1]) == ["latent 1"]
    assert bars.error_x.array[0] == pytest.approx(0.5)
    assert set(bars.marker.pattern.shape[:3]) != set(bars.marker.pattern.shape[3:])
    assert control.name == "control"
    assert "rose" in bars.hovertext[0]
    nothing = latent_table().assign(finding=Moved.UNDETECTED.value)
    assert "none is distinguishable" in latent_bars(nothing).layout.title.text
    alone = latent_bars(latent_table().assign(control_sd=np.nan))
    assert [trace.name for trace in alone.data] == ["after"]


def test_findings_differ_in_shape_and_colour() -> None:
    figure = latent_scatter(latent_table())
    looks = {trace.name: (trace.marker.symbol, trace.marker.color) for trace in figure.data}
    assert set(looks) == {finding.value for finding in FINDINGS}
    assert len({symbol for symbol, _ in looks.values()}) == len({colour for _, colour in looks.values()}) == len(looks)
    assert figure.data[-1].name == Moved.ROSE.value
    assert "latent 1: rose" in figure.data[-1].hovertext[0]
    assert sum(len(trace.x) for trace in figure.data) == 39
    alone = latent_scatter(latent_table().assign(control_sd=np.nan))
    assert alone.layout.xaxis.title.text.startswith("before")
    assert {value for trace in alone.data for value in trace.x} == {10.0}


def test_no_more_points_than_a_page_can_hold() -> None:
    table = latent_table(DRAWN + 500)
    kept = drawn(table.sample(frac=1.0, random_state=0))
    assert kept["latent"].tolist() == table["latent"].head(DRAWN).tolist()


def test_effects_stand_beside_matched_latents() -> None:
    figure = latent_effects(effects())
    own, null = figure.data
    assert list(own.x) == [0.4, -0.1]
    assert own.error_x.array[0] == pytest.approx(0.1)
    assert "+40.0 [+30.0, +50.0] percentage points" in own.hovertext[0]
    assert null.y[0] != own.y[0]
    assert "latent 4 · induce" in latent_effects(effects().assign(goal="induce")).layout.yaxis.ticktext


@pytest.mark.parametrize(("draw", "column"), [(latent_bars, "change_sd"), (latent_scatter, "finding")])
def test_a_missing_column_is_named(draw: Any, column: str) -> None:
    with pytest.raises(MissingDataError, match=repr(column)):
        draw(latent_table().drop(columns=column))
    with pytest.raises(MissingDataError, match=repr(column)):
        draw(pd.DataFrame())
    with pytest.raises(MissingDataError, match="'null_low'"):
        latent_effects(effects().drop(columns="null_low"))
