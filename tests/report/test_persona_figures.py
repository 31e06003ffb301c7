"""Figures of directions, probes and amplification: what they draw of their tables, and that nothing collides."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from persona_probe.figures.amplification import amplification
from persona_probe.figures.amplification_course import amplification_course
from persona_probe.figures.cosine_matrix import cosine_matrix
from persona_probe.figures.cosines import cosines
from persona_probe.figures.cross_ablation import cross_ablation
from persona_probe.figures.direction_card import direction_card
from persona_probe.figures.finders import finders
from persona_probe.figures.keys import label
from persona_probe.figures.persona_space import persona_space
from persona_probe.figures.probe import probe
from persona_probe.figures.projections import projections
from persona_probe.figures.subspace import subspace
from persona_probe.figures.template import SERIES_STYLES
from persona_probe.figures.tokens import shown, tokens
from persona_probe.figures.transfer import transfer
from tests.browser import open_page
from tests.figure_notes import note, unescaped

HOSTILE = "</script><img src=x onerror=alert(1)>"
NAMES = ("villain", HOSTILE, "answers: misaligned - aligned", "trickster")
LAYERS = range(4)


def _cosines() -> pd.DataFrame:
    pairs = itertools.product(itertools.combinations(NAMES, 2), LAYERS)
    return pd.DataFrame(
        [
            {"layer": layer, "first": a, "second": b, "cosine": 0.9 - 0.3 * layer, "null_high": 0.2, "ceiling": 0.95}
            for (a, b), layer in pairs
        ]
    )


def _transfer() -> pd.DataFrame:
    cells = itertools.product(enumerate(NAMES), enumerate(NAMES))
    return pd.DataFrame(
        [
            {"train": a, "test": b, "layer": 2, "value": 1 - 0.15 * abs(i - j), "low": 0.9 - 0.2 * abs(i - j),
             "high": 1 - 0.1 * abs(i - j), "n": 80 + i, "method": HOSTILE, "grouping": "by group (8 groups)"}
            for (i, a), (j, b) in cells
        ]
    )  # fmt: skip


def _subspace() -> pd.DataFrame:
    cells = itertools.product(LAYERS, LAYERS)
    return pd.DataFrame([{"first": a, "second": b, "overlap": 1 / (1 + abs(a - b)), "chance": 0.02} for a, b in cells])


def _card() -> pd.DataFrame:
    numbers = {"norm": 10.0, "shuffled_norm": 3.0, "split_half_cosine": 0.9, "shuffled_cosine": 0.3}
    numbers |= {"held_out_auroc": 0.97, "held_out_auroc_low": 0.91, "held_out_auroc_high": 0.99}
    return pd.DataFrame({"layer": LAYERS, **numbers, "replication": ["does not replicate", *["replicates"] * 3]})


def _tokens() -> pd.DataFrame:
    rows = itertools.product(("promoted", "suppressed"), enumerate([" poison", HOSTILE, "\n\u202e"], 1))
    return pd.DataFrame(
        [
            {"layer": 3, "rank": rank, "side": side, "token": token, "token_id": rank, "logit": sign / rank}
            for side, (rank, token) in rows
            for sign in [1.0 if side == "promoted" else -1.0]
        ]
    )


def _projections() -> pd.DataFrame:
    ends = {"before": 0.1, "control": -0.2, "after": 3.0}
    return pd.DataFrame(
        [
            {"direction": HOSTILE, "layer": layer, "model": model, "mean": 5 * x, "mean_sd": x * layer,
             "low_sd": x * layer - 0.3, "high_sd": x * layer + 0.3, "n": 384, "n_questions": 96, "chosen": layer == 2}
            for (model, x), layer in itertools.product(ends.items(), LAYERS)
        ]
    )  # fmt: skip


def _space() -> pd.DataFrame:
    places = [("direction", name, 30.0 * i, 20.0 * (i % 2)) for i, name in enumerate(NAMES)]
    places += [("model", "before", 0, 0), ("model", "after", 40, 15), ("model", "control", 2, -1)]
    rows = pd.DataFrame(places, columns=["kind", "name", "x", "y"])
    model = rows["kind"] == "model"
    ends = {f"{axis}_{end}": rows[axis].where(model) + by for axis in "xy" for end, by in (("low", -3), ("high", 3))}
    held = rows["name"].map({"after": 0.7, "control": 0.05})
    common = {"layer": 3, "x_explained": 0.6, "y_explained": 0.3, "n": 384, "n_questions": 96}
    return rows.assign(**ends, **common, in_plane=held, in_plane_random=held.where(held.isna(), 0.1))


def _ablation() -> pd.DataFrame:
    rows = [(o, d, k) for o in ("one", HOSTILE) for d, k in ((None, "none"), ("one", "clamp"), ("one", "random clamp"))]
    table = pd.DataFrame(rows, columns=["organism", "direction", "intervention"])
    return table.assign(layer=2, value=0.4, low=0.3, high=0.5, n=120, coherent=0.95)


def _course() -> pd.DataFrame:
    rows = itertools.product((0, 20, 40), (("after", 0.1), ("control", 0.0)))
    return pd.DataFrame(
        [
            {"step": step, "direction": HOSTILE, "layer": 2, "model": model, "shift": slope * step,
             "shift_sd": slope * step, "low_sd": slope * step - 0.3, "high_sd": slope * step + 0.3, "random_sd": 0.5,
             "isotropic_sd": 0.8, "shuffled_sd": 0.6, "other_traits_sd": 0.9, "specificity": 3.0, "n": 384,
             "n_questions": 96, "n_runs": 1, "replication": "replicates", "split_half_cosine": 0.9,
             "held_out_auroc": 0.97, "held_out_auroc_low": 0.91, "held_out_auroc_high": 0.99}
            for step, (model, slope) in rows
        ]
    )  # fmt: skip


NEW: dict[str, tuple[Callable[[], pd.DataFrame], Callable[[pd.DataFrame], go.Figure], str]] = {
    "cosine matrix": (_cosines, lambda table: cosine_matrix(table, layer=1), "cosine"),
    "transfer": (_transfer, lambda table: transfer(table, layer=2), "value"),
    "subspace": (_subspace, lambda table: subspace(table, k=3), "overlap"),
    "direction": (_card, lambda table: direction_card(table, name=HOSTILE, verdict="replicates at layer 2"), "norm"),
    "tokens": (_tokens, lambda table: tokens(table, layer=3, name=HOSTILE), "logit"),
    "projections": (_projections, projections, "mean_sd"),
    "persona space": (_space, persona_space, "x"),
    "cross ablation": (_ablation, cross_ablation, "value"),
    "course": (_course, lambda table: amplification_course(table, layer=2), "shift_sd"),
}


@pytest.mark.parametrize("name", NEW)
def test_figures_are_drawn_in_the_house_template_and_say_what_they_show(name: str) -> None:
    make, draw, _ = NEW[name]
    table = make()
    copy = table.copy(deep=True)
    figure = draw(table)
    pd.testing.assert_frame_equal(table, copy)
    assert figure.layout.template.layout.colorway == tuple(style.colour for style in SERIES_STYLES)
    assert figure.layout.title.text
    assert len(note(figure)) > 40
    assert "<img" not in unescaped(figure)


@pytest.mark.parametrize("name", NEW)
def test_what_a_figure_misses_is_named(name: str) -> None:
    make, draw, column = NEW[name]
    table = make()
    for poor in (table.drop(columns=column), table.iloc[:0], table.assign(**{column: float("nan")})):
        with pytest.raises(ValueError, match=repr(column)):
            draw(poor)


@pytest.mark.parametrize("name", NEW)
def test_numbers_without_intervals_and_nulls_are_drawn(name: str) -> None:
    make, draw, column = NEW[name]
    table = make()
    ends = {"low", "high", "low_sd", "high_sd", "null_high", "ceiling", "random_sd", "in_plane", "coherent"}
    ends |= {"split_half_cosine", "shuffled_norm", "x_low", "x_high", "specificity"}
    assert draw(table.assign(**dict.fromkeys(ends & set(table) - {column}, float("nan")))).data


@pytest.mark.parametrize("draw", [cosine_matrix, transfer])
def test_a_layer_that_is_not_there_is_named(draw: Callable[..., go.Figure]) -> None:
    table = _cosines() if draw is cosine_matrix else _transfer()
    with pytest.raises(ValueError, match="'layer' holds no 9"):
        draw(table, layer=9)
    with pytest.raises(ValueError, match="'layer' holds no 9"):
        tokens(_tokens(), layer=9, name="x")
    with pytest.raises(ValueError, match="at layer 9"):
        amplification_course(_course(), layer=9)


def test_a_matrix_holds_each_number_twice_and_says_what_is_weak() -> None:
    table = _cosines()
    table.loc[(table["first"] == "villain") & (table["second"] == "trickster"), "cosine"] = 0.1
    figure = cosine_matrix(table, layer=1)
    values = np.array(figure.data[0].z, dtype=float)
    np.testing.assert_allclose(values, values.T)
    np.testing.assert_allclose(values.diagonal(), 1)
    cells = np.array(figure.data[1].text).reshape(4, 4)
    assert (cells[0, 3], cells[3, 0], cells[0, 1]) == ("(0.10)", "(0.10)", "0.60")
    assert "below 0.20; such cosines are in parentheses. Noise allows at most 0.95" in note(figure)
    assert cosine_matrix(table).layout.title.text.endswith("layer 2")


def test_large_matrices_leave_their_numbers_to_hovering() -> None:
    names = [f"d{i}" for i in range(24)]
    rows = [{"layer": 0, "first": a, "second": b, "cosine": 0.5} for a, b in itertools.combinations(names, 2)]
    figure = cosine_matrix(pd.DataFrame(rows), layer=0)
    assert len(figure.data) == 1
    assert "cosine 0.500" in figure.data[0].hovertext[0][1]


def test_transfer_writes_intervals_while_there_is_room() -> None:
    figure = transfer(_transfer(), layer=2)
    assert "[0.90, 1.00]" in figure.data[1].text[0]
    assert figure.data[1].text[3].startswith("(0.55)")
    assert "n = 80 to 83 dialogues per cell. Diagonal: cross-validated, split by group (8 groups)." in note(figure)


def test_tokens_show_what_cannot_be_seen() -> None:
    assert shown(" a\n\u202eb") == "␣a⏎\N{REPLACEMENT CHARACTER}b"
    assert shown("") == "(empty)"
    assert len(shown("x" * 100)) == 24
    assert shown("<b>") == "&lt;b&gt;"


def test_labels_are_two_short_lines_at_most() -> None:
    text = label(f"{'<i>very</i> ' * 30}")
    assert text.count("<br>") == 1
    assert "<i>" not in text
    assert text.endswith("…")
    assert label("villain") == "villain"


def test_the_space_states_the_planes_share_beside_chance() -> None:
    said = note(persona_space(_space()))
    assert "The plane contains 70 % of after's shift from before (97.5 % of random planes: below 10 %)." in said
    assert "95 % over 96 questions, n = 384 texts; directions have no interval." in said


OVERLAPS = """
(() => {
  const seen = [];
  for (const place of document.querySelectorAll(".figure")) {
    const parts = [".gtitle", ".gtitle-subtitle", ".legend", ".xtitle", ".ytitle", ".xaxislayer-above", ".colorbar"];
    const boxes = parts.flatMap((part) => [...place.querySelectorAll(part)].map((node) => [part, node]))
      .concat([...place.querySelectorAll(".annotation")].map((node) => [node.textContent, node]))
      .map(([part, node]) => [part, node.getBoundingClientRect()])
      .filter(([, box]) => box.width && box.height);
    const frame = place.getBoundingClientRect();
    for (const [i, [one, a]] of boxes.entries()) {
      if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 1 || a.bottom > frame.bottom + 1)
        seen.push(`${place.id}: ${one} is cut off`);
      for (const [two, b] of boxes.slice(i + 1)) {
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (across > 1 && down > 1) seen.push(`${place.id}: ${one} on ${two}`);
      }
    }
  }
  return seen;
})()
"""


@pytest.mark.parametrize("width", [740, 840])
def test_titles_notes_keys_and_axes_do_not_touch(width: int, tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    nulls = {"isotropic_sd": 0.6, "shuffled_sd": 0.5, "other_traits_sd": 0.7, "n": 384, "n_questions": 96}
    drawn = {name: draw(make()) for name, (make, draw, _) in NEW.items()} | {
        "amplification": amplification(tables["amplification"].assign(**nulls)),
        "finders": finders(tables["finders"]),
        "probe": probe(tables["probe"]),
        "cosines": cosines(_cosines()),
    }
    parts = [
        f'<div class="figure" id="{name}" style="width: {width}px; height: {figure.layout.height or 420}px"></div>'
        f"<script>Plotly.newPlot({name!r}, {figure.to_json()}, {{displayModeBar: false}});</script>"
        for name, figure in drawn.items()
    ]
    page = tmp_path / "figures.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><script>{get_plotlyjs()}</script>{''.join(parts)}", "utf-8")
    with open_page(page, width=width + 40) as shown_page:
        shown_page.wait_for(f"document.querySelectorAll('.figure .main-svg .gtitle').length >= {len(drawn)}")
        assert shown_page.evaluate(OVERLAPS) == []
        assert not shown_page.errors
