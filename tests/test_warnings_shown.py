"""The command line shows the package's warnings, once each, and the report shows those of a study."""

import subprocess
import sys
import warnings

import pytest

import persona_probe as pp
from persona_probe.study.pipeline import noted

SAYING = """
import logging, warnings
from persona_probe.cli.warnings_shown import show_own_warnings
from persona_probe.errors import PersonaProbeWarning
from persona_probe.latents.sae import LatentWarning
logging.basicConfig(level=logging.ERROR)
show_own_warnings()
for place in range(3):
    warnings.warn("the judge failed on 3 of 9", PersonaProbeWarning, stacklevel=1)
    exec('warnings.warn("the judge failed on 3 of 9", PersonaProbeWarning, stacklevel=1)')
    logging.getLogger("persona_probe.models").warning("the template adds today's %s", "date")
warnings.warn("the SAE does not fit", LatentWarning, stacklevel=1)
warnings.warn("something old", DeprecationWarning, stacklevel=1)
warnings.warn("something of another library", UserWarning, stacklevel=1)
logging.getLogger("transformers").warning("noise")
"""


def test_own_warnings_are_shown_once_each_and_no_others():
    done = subprocess.run([sys.executable, "-c", SAYING], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "persona-probe: warning: the judge failed on 3 of 9",
        "persona-probe: warning: the template adds today's date",
        "persona-probe: warning: the SAE does not fit",
    ]


def warn_twice(notes, message, category):
    with noted(notes):
        for _ in range(2):
            warnings.warn(message, category, stacklevel=1)


def test_warnings_of_a_stage_are_notes_of_its_report():
    notes = ["an older note"]
    with pytest.warns(pp.PersonaProbeWarning, match="seven answers"):
        warn_twice(notes, "seven answers failed", pp.PersonaProbeWarning)
    assert notes == ["an older note", "seven answers failed"]
    with pytest.warns(DeprecationWarning, match="old"):
        warn_twice(notes, "old", DeprecationWarning)
    assert len(notes) == 2
