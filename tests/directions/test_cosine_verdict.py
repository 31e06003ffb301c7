import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.directions.cosines import CosineTable


def table():
    rows = [
        {"layer": layer, "first": first, "second": second, "cosine": cosine + layer, "null_high": 0.2 + layer / 100}
        for layer in (0, 1)
        for first, second, cosine in (("mine", "shift", -0.9), ("words", "mine", -0.5), ("shift", "words", 0.3))
    ]
    return pd.DataFrame(rows)


def test_the_verdict_gives_one_directions_cosines_at_a_layer():
    assert CosineTable(table()).verdict("mine", 1) == (
        "At layer 1 the direction 'mine' has cosine +0.10 with 'shift', +0.50 with 'words' (97.5 % of random "
        "directions: below 0.21)."
    )
    assert "random" not in CosineTable(table().drop(columns="null_high")).verdict("mine", 1)


def test_what_was_not_compared_is_refused():
    with pytest.raises(pp.PersonaProbeError, match="no cosines with the direction 'other'; directions: mine, words"):
        CosineTable(table()).verdict("other", 1)
    with pytest.raises(pp.PersonaProbeError, match="no cosines at layer 5"):
        CosineTable(table()).verdict("mine", 5)
