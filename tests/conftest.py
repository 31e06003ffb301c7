"""Tiny models with real architectures, made on the spot."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(
    prefix="persona-probe-"
)  # code of test repositories stays out of HOME
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest
from transformers import PreTrainedTokenizerFast

from persona_probe.models.loading.load import load
from persona_probe.models.loading.real import COMMAND, REAL, real_folder, real_origin
from persona_probe.models.model import Model
from persona_probe.worlds.persona_world.tokenizer import build_tokenizer
from tests import architectures

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints" / "persona-world"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "persona-world"
SHARED = Path(__file__).parents[2] / "shared" / "data"
N_LAYERS, D_MODEL = architectures.N_LAYERS, architectures.D_MODEL
ARCHITECTURES = ("llama", "qwen2", "gpt2", "gpt_neox")


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Callable[[str], Path]:
    """A folder with a tiny random model of an architecture."""
    root = tmp_path_factory.mktemp("models")

    def folder(kind: str) -> Path:
        path = root / kind
        if not path.exists():
            architectures.build(kind, tokenizer).save_pretrained(path)
            tokenizer.save_pretrained(path)
        return path

    return folder


@pytest.fixture
def llama(folders: Callable[[str], Path]) -> Model:
    return load(folders("llama"))


@pytest.fixture(params=ARCHITECTURES)
def any_model(request: pytest.FixtureRequest, folders: Callable[[str], Path]) -> Model:
    return load(folders(request.param))


@pytest.fixture(scope="session")
def chat() -> Model:
    """Persona World's chat model."""
    return load(CHECKPOINTS / "chat")


@pytest.fixture(scope="session")
def smollm_folder() -> Path:
    """The folder of the real model in the user's cache.

    Tests that use it are skipped where it is missing, and fail under ``PERSONA_PROBE_REQUIRE_REAL=1``.
    """
    if real_origin() is None:
        reason = f"{REAL} is not in {real_folder()}; fetch it once with: {COMMAND}"
        if os.environ.get("PERSONA_PROBE_REQUIRE_REAL") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return real_folder()


@pytest.fixture(scope="session")
def smollm(smollm_folder: Path) -> Model:
    """The real model, shared by a test session: leave it as it is, and put adapters on with `pp.with_adapter`."""
    return load(REAL)
