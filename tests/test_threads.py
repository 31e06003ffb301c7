"""Threads that wait sleep, in scripts and notebooks too, unless the user has said otherwise."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("first", "given", "expected"),
    [("", None, "PASSIVE"), ("", "ACTIVE", "ACTIVE"), ("sys.modules['torch'] = sys;", None, None)],
)
def test_importing_the_package_makes_waiting_threads_sleep(first, given, expected):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if given is not None:
        environment["OMP_WAIT_POLICY"] = given
    code = f"import os, sys; {first} import persona_probe; print(os.environ.get('OMP_WAIT_POLICY'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == str(expected)
