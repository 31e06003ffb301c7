"""Token views: the numbers, the table, and the page in a real browser."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.figures.token_heatmap import token_heatmap
from persona_probe.probes.layer_probes import LayerProbes
from persona_probe.token_view.frame import readings
from persona_probe.token_view.token_view import view_tokens
from persona_probe.token_view.view import TokenView
from tests.browser import open_page
from tests.latents.conftest import LAYER, make_sae

HOSTILE = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>\u202e\u2028'
TALKS = [
    pp.Dialogue.from_messages(
        [
            {"role": "user", "content": "how do i grow roses ?"},
            {"role": "assistant", "content": "You should share it."},
        ],
        id="roses",
    ),
    pp.Dialogue.from_messages([{"role": "user", "content": "what should i eat ?"}]),
]


def direction(model, name="evil", seed=0):
    vectors = np.random.default_rng(seed).normal(size=(model.n_layers, model.d_model))
    return pp.Direction(vectors.astype(np.float32), tuple(range(model.n_layers)), {"name": name})


def table_of(tokens, *, series=("evil", "kind"), layers=(0, 1, 2), seed=0, **columns):
    """A table as `TokenView` holds it, without a model."""
    rng = np.random.default_rng(seed)
    given = pd.DataFrame(
        {
            "dialogue": 0,
            "name": "a talk",
            "position": range(len(tokens)),
            "token_id": range(len(tokens)),
            "token": tokens,
            "part": "response",
            "special": False,
        }
    )
    parts = [
        given.assign(series=name, unit="units", layer=layer, value=rng.normal(size=len(tokens)))
        for name in series
        for layer in layers
    ]
    return pd.concat(parts, ignore_index=True).assign(
        **({"centre": 0.0, "sd": np.nan, "random": 0.5, "sink": False} | columns)
    )


def test_projections_are_those_of_the_captured_tokens(llama):
    one = direction(llama)
    usual = pp.capture(llama, [TALKS[0], TALKS[0].with_answer("No .")], "response", sink_ratio=None)
    view = view_tokens(llama, TALKS, {"evil": one}, reference=usual)
    read = pp.capture(llama, TALKS, "all", "tokens")
    frame = view.to_frame()
    assert len(frame) == len(read) * llama.n_layers
    reference = one.project(usual)
    for layer in range(llama.n_layers):
        own = frame[frame["layer"] == layer]
        np.testing.assert_allclose(own["value"], one.project(read)[:, layer], rtol=1e-6)
        assert own["centre"].unique() == pytest.approx(reference[:, layer].mean(), abs=1e-5)
        sd = (own["value"] - reference[:, layer].mean()) / reference[:, layer].std(ddof=1)
        np.testing.assert_allclose(own["value_sd"], sd, rtol=1e-3, atol=1e-3)
    first = frame[(frame["layer"] == 0) & (frame["dialogue"] == 0)]
    rendered = llama.template.render(TALKS[0])
    assert "".join(first["token"]) == rendered
    assert first.loc[first["part"] == "response", "token"].str.cat() == "You should share it."
    assert set(frame["name"]) == {"1. roses", "2. what should i eat ?"}


def test_random_directions_say_how_far_anything_would_reach(llama):
    view = view_tokens(llama, TALKS, direction(llama), layers=[1], n_random=400)
    read = pp.capture(llama, TALKS, "all", "tokens", layers=[1]).at(1)
    draws = np.random.default_rng(5).normal(size=(400, llama.d_model))
    draws /= np.linalg.norm(draws, axis=1, keepdims=True)
    expected = np.quantile(np.abs(read @ draws.T), 0.975)
    assert view.to_frame()["random"].unique() == pytest.approx(expected, rel=0.1)
    assert view_tokens(llama, TALKS, direction(llama), layers=[1], n_random=0).to_frame()["random"].isna().all()


def test_probes_latents_and_several_series(llama):
    activations = pp.capture(llama, TALKS * 3, "prompt", sink_ratio=None)
    probes = LayerProbes(C=0.1).fit(activations, [True, False] * 3)
    sae = make_sae()
    view = view_tokens(
        llama, TALKS[0], {"probe": probes, "evil": direction(llama), "sae": (sae, [3, 7])}, span="response"
    )
    assert view.series == ["probe", "evil", "sae latent 3", "sae latent 7"]
    frame = view.to_frame()
    assert set(frame["part"]) == {"response"}
    read = pp.capture(llama, [TALKS[0]], "response", "tokens")
    own = frame[(frame["series"] == "probe") & (frame["layer"] == 2)]
    np.testing.assert_allclose(own["value"], probes.decision_function(read)[:, 2], rtol=1e-5)
    assert (own["centre"] == 0).all()
    latent = frame[frame["series"] == "sae latent 7"]
    assert set(latent["layer"]) == {LAYER}
    import torch

    acts = sae.encode(torch.from_numpy(read.at(LAYER)))[:, 7].detach().numpy()
    np.testing.assert_allclose(latent["value"], acts, rtol=1e-5, atol=1e-6)


def test_misuse(llama):
    one = direction(llama)
    with pytest.raises(pp.PersonaProbeError, match="no dialogues"):
        view_tokens(llama, [], one)
    with pytest.raises(pp.PersonaProbeError, match="none of the layers 2; it has 0, 1"):
        view_tokens(llama, TALKS, one.select([0, 1]), layers=2)
    with pytest.raises(pp.PersonaProbeError, match="by is a str"):
        view_tokens(llama, TALKS, {"evil": "evil"})
    with pytest.raises(pp.PersonaProbeError, match="'value'"):
        TokenView.from_frame(table_of(["a"]).drop(columns="value"))
    with pytest.raises(pp.PersonaProbeError, match="'kind' has 1 rows at layer 2"):
        TokenView.from_frame(table_of(["a", "b"]).iloc[:-1])
    view = TokenView.from_frame(table_of(["a", "b"]))
    with pytest.raises(pp.PersonaProbeError, match="no series 'x'"):
        view.plot("x")
    with pytest.raises(pp.PersonaProbeError, match="no dialogue 4"):
        view.plot(dialogue=4)
    with pytest.raises(pp.PersonaProbeError, match=r"end in \.html"):
        view.save("view.txt")


def test_the_scale_ignores_sinks_and_one_token_far_out():
    table = table_of([str(n) for n in range(40)], series=["evil"], layers=[0])
    table.loc[0, ["value", "sink"]] = [1e6, True]
    table.loc[1, "value"] = 1e5
    (reading,) = readings(table)
    assert reading.scale < 10


def test_the_table_makes_the_same_view_again_without_torch(tmp_path):
    view = TokenView.from_frame(table_of(["You ", "should ", "\n"]))
    view.to_frame().to_parquet(tmp_path / "tokens.parquet")
    (tmp_path / "view.html").write_text(view.to_html(), encoding="utf-8")
    script = (
        "import sys, pandas as pd; from persona_probe.token_view.view import TokenView; "
        f"view = TokenView.from_frame(pd.read_parquet({str(tmp_path / 'tokens.parquet')!r})); view.plot(); "
        f"assert view.to_html() == open({str(tmp_path / 'view.html')!r}, encoding='utf-8').read(); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_heatmap_has_layers_or_series_in_rows():
    view = TokenView.from_frame(table_of(["a", " b", HOSTILE], sd=2.0))
    figure = view.plot("kind")
    (heat,) = figure.data
    own = view.table[view.table["series"] == "kind"]
    np.testing.assert_allclose(heat.z[1], own.loc[own["layer"] == 1, "value"] / 2.0)
    assert list(heat.y) == ["0", "1", "2"]
    assert "0.25" in figure.layout.title.text
    assert "<img" not in "".join([*figure.layout.xaxis.ticktext, *heat.text[0]])
    across = TokenView.from_frame(table_of(["a", "b"], layers=[3])).plot()
    assert list(across.data[0].y) == ["evil", "kind"]
    with pytest.raises(ValueError, match="no column 'value'"):
        token_heatmap(view.table.drop(columns="value"))


def test_without_scripts_one_layer_is_coloured_and_titled():
    view = TokenView.from_frame(table_of(["You ", " ", "roses"], centre=0.25))
    page = re.sub(r"<script.*?</script>|<style.*?</style>", "", view._repr_html_(), flags=re.DOTALL)
    spans = re.findall(
        r'<span style="background-color: rgba\(([^)]*)\)[^"]*" data-about="[^"]*" title="([^"]*)">', page
    )
    own = view.table[(view.table["series"] == "evil") & (view.table["layer"] == 1)]
    assert [colour.startswith("213, 94, 0") for colour, _ in spans] == (own["value"] > 0.25).tolist()
    for (_, title), value in zip(spans, own["value"], strict=True):
        assert f"{value:+.3f} units" in title
        assert "layer 1" in title
    assert "evil, layer 1 (output of block, counted from 0)" in page
    assert ">␣<" in page
    assert "<input" not in page
    assert "<select" not in page


def test_the_page_is_small_and_holds_each_number_once():
    table = table_of(["word "] * 1_000, series=["evil"], layers=range(12))
    html = TokenView.from_frame(table).to_html()
    assert len(html) < 330_000
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[1])
    assert len(data["series"][0]["layers"]) == 12


@pytest.fixture
def page(tmp_path):
    """Two views on one page, the second of hostile text."""
    first = TokenView.from_frame(table_of(["You ", "should ", "share ", "it", "\n"], sd=0.5))
    second = TokenView.from_frame(table_of(["a", HOSTILE, " "], series=[HOSTILE, "x"], name=HOSTILE, unit=HOSTILE))
    path = tmp_path / "views.html"
    path.write_text(
        "<!doctype html><meta charset=utf-8><title>two</title>" + first.to_html() + second.to_html() + first.to_html(),
        encoding="utf-8",
    )
    with open_page(path, width=900) as opened:
        yield opened, first


def _colours(root=0):
    return (
        f"[...document.querySelectorAll('.pp-tokens')[{root}].querySelectorAll('.pp-text span')]"
        ".map(token => token.style.backgroundColor)"
    )


def test_in_a_browser(page):
    opened, first = page
    assert opened.evaluate("document.querySelectorAll('[data-pp-ready]').length") == 3
    static = re.findall(r'title="([^"]*)"', first.to_html())
    titles = "[...document.querySelectorAll('.pp-text span')].slice(0, 5).map(token => token.title)"
    assert opened.evaluate(titles) == [title.replace("&#39;", "'") for title in static]
    assert "SD from the reference" in static[0]
    before, other = opened.evaluate(_colours()), opened.evaluate(_colours(2))

    opened.evaluate("document.querySelector('input[type=range]').focus()")
    opened.press("ArrowRight")
    moved = opened.evaluate(_colours())
    assert moved != before
    own = first.table[(first.table["series"] == "evil") & (first.table["layer"] == 2)]
    assert [colour.startswith("rgba(213") for colour in moved] == (own["value"] > 0).tolist()
    slider = opened.evaluate("document.querySelector('input[type=range]').getAttribute('aria-valuetext')")
    assert slider == "layer 2 (output of block, counted from 0)"
    assert opened.evaluate(_colours(2)) == other, "the other views stay as they are"

    opened.evaluate(
        "(() => { const menu = document.querySelector('select'); menu.value = '1'; "
        "menu.dispatchEvent(new Event('change')); })()"
    )
    kind = first.table[(first.table["series"] == "kind") & (first.table["layer"] == 2)]
    assert [one.startswith("rgba(213") for one in opened.evaluate(_colours())] == (kind["value"] > 0).tolist()
    assert opened.evaluate("document.querySelector('.pp-shown').textContent").startswith("kind, layer 2")

    opened.hover(".pp-text span:nth-child(2)")
    said = opened.evaluate("document.querySelector('.pp-readout').textContent")
    assert said.startswith(f"'should', position 1, response: {kind['value'].iloc[1]:+.3f} units")
    opened.evaluate("document.querySelector('.pp-text span').focus()")
    opened.press("ArrowRight")
    opened.press("ArrowRight")
    assert "'share', position 2" in opened.evaluate("document.querySelector('.pp-readout').textContent")

    # Hostile text is only text, in both series and at every layer.
    root = "document.querySelectorAll('.pp-tokens')[1]"
    opened.evaluate(
        f"(() => {{ const menu = {root}.querySelector('select'), slider = {root}.querySelector('input'); "
        "for (const one of ['1', '0']) { menu.value = one; menu.dispatchEvent(new Event('change')); "
        "for (const at of ['0', '2']) { slider.value = at; slider.dispatchEvent(new Event('input')); } } })()"
    )
    shown = opened.evaluate(f"{root}.querySelectorAll('.pp-text span')[1].textContent")
    assert "<img src=x onerror=alert(1)></script>" in shown
    assert opened.evaluate("document.querySelectorAll('img').length") == 0
    assert opened.errors == []
    assert opened.requests == []


def test_a_saved_page_runs_under_its_own_policy(tmp_path):
    path = TokenView.from_frame(table_of(["a ", "b"], series=["evil", HOSTILE])).save(tmp_path / "view.html")
    with open_page(path, dark=True) as opened:
        opened.wait_for("document.querySelector('[data-pp-ready]')")
        assert opened.evaluate("getComputedStyle(document.body).color") == "rgb(255, 255, 255)"
        assert opened.errors == []
        assert opened.requests == []


def test_scores_of_probes_and_monitors_become_views(llama):
    activations = pp.capture(llama, TALKS * 3, "prompt", sink_ratio=None)
    probes = LayerProbes(C=0.1).fit(activations, [True, False] * 3)
    scores = pp.probes.token_scores(llama, probes, TALKS, 1)
    view = TokenView.from_scores(scores, 1)
    assert view.layers == [1]
    np.testing.assert_allclose(view.table["value"], scores["score"])
    assert "".join(view.table.loc[view.table["dialogue"] == 0, "token"]) == llama.template.render(TALKS[0])

    with pp.probes.monitor(llama, probes, layer=1) as seen:
        assert "no answer" in seen.headline()
        with pytest.raises(pp.PersonaProbeError, match="no answer was scored"):
            seen.plot()
        llama.generate([talk.without_answer() for talk in TALKS], pp.Sampling(max_new_tokens=6, n=2))
    assert "4 answers scored" in seen.headline()
    assert "n = 4 answers" in seen.plot().layout.title.subtitle.text
    again = TokenView.from_scores(seen.table, 1, name="refusal")
    assert again.series == ["refusal"]
    assert again.table["dialogue"].nunique() == 4
    with pytest.raises(pp.PersonaProbeError, match="'score'"):
        TokenView.from_scores(seen.table.drop(columns="score"), 1)
