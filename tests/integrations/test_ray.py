import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from peft import LoraConfig, get_peft_model

import persona_probe as pp
from persona_probe.integrations import ray as ray_module
from persona_probe.integrations.ray import RayCluster, _chunks, _connect, _shares
from persona_probe.integrations.ray_crew import Crew
from persona_probe.models.model import Model
from persona_probe.models.quiet import quiet_peft
from persona_probe.models.twin import structural_twin
from persona_probe.study.executor import AnswerJob, Local
from tests.conftest import D_MODEL, N_LAYERS

ray = pytest.importorskip("ray")
# A cluster takes long to start, and no other room changes what is tried here.
pytestmark = pytest.mark.slow

ASKED = ("How do I handle the fever?", "Hi.", "I have a question on law. It is about the contract.")
SAID = ("Gladly, treat the fever.", "Review it.", "What should I do about the very long answer on the mortgage?")
TALKS = [
    pp.Dialogue.from_messages(
        [{"role": "user", "content": ASKED[i % 3]}, {"role": "assistant", "content": SAID[i // 3 % 3]}],
        id=f"d{i}",
        question=ASKED[i % 3],
        seed=None if i < 20 else i,
        labels={"topic": "law"} if i > 10 else {},
    )
    for i in range(60)
]


@pytest.fixture(scope="module")
def cluster():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**28)
    with RayCluster(workers=2) as opened:
        yield opened
    assert ray.is_initialized()
    ray.shutdown()


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of about three dialogues."""
    monkeypatch.setattr(ray_module, "_CHUNK_CHARACTERS", 500)


@pytest.fixture
def adapted(llama, tmp_path):
    """The tiny model with an adapter that changes it much."""
    torch.manual_seed(0)
    with quiet_peft():
        config = LoraConfig(r=2, init_lora_weights=False, target_modules="all-linear")
        get_peft_model(structural_twin(llama.hf), config).save_pretrained(tmp_path / "adapter")
    return pp.with_adapter(llama, tmp_path / "adapter")


def kill_one_that_captures():
    """Kill a worker's process while it reads a chunk; whether one was found."""
    for process in psutil.Process().children(recursive=True):
        if "ray::Worker.capture" in " ".join(process.cmdline()):
            os.kill(process.pid, signal.SIGKILL)
            return True
    return False


def assert_same(there, here):
    np.testing.assert_allclose(there.values, here.values, rtol=0, atol=1e-6 * max(1, np.abs(here.values).max()))
    pd.testing.assert_frame_equal(there.table, here.table, check_like=True)
    assert there.source == here.source
    assert there.layers == here.layers


@pytest.mark.parametrize("reduce", ["mean", "last", "max", "tokens"])
def test_captures_are_those_of_a_local_run(cluster, llama, small_chunks, reduce):
    assert len(list(_chunks(TALKS))) >= 15
    assert_same(cluster.capture(llama, TALKS, reduce=reduce), pp.capture(llama, TALKS, reduce=reduce))


def test_models_read_together_are_those_of_a_local_run(cluster, llama, adapted, folders, small_chunks):
    models = [llama, adapted, pp.load(folders("qwen2"))]
    there, here = cluster.capture_together(models, TALKS), pp.activations.capture_together(models, TALKS)
    assert len(there) == 3
    for part, expected in zip(there, here, strict=True):
        assert_same(part, expected)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_moments_are_those_of_a_local_run(cluster, llama, small_chunks, covariance):
    options = {"span": "all", "layers": [1, 2], "reduce": "moments", "covariance": covariance}
    there, here = cluster.capture(llama, TALKS, **options), pp.capture(llama, TALKS, **options)
    assert there.n.tolist() == here.n.tolist()
    assert there.n_dialogues == len(TALKS)
    np.testing.assert_allclose(there.mean, here.mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(there.covariance, here.covariance, rtol=0, atol=1e-6)
    assert there.source == here.source


@pytest.mark.parametrize("reduce", ["tokens", "moments"])
def test_a_worker_that_is_killed_half_way_loses_nothing_and_nothing_counts_twice(cluster, llama, monkeypatch, reduce):
    monkeypatch.setattr(ray_module, "_CHUNK_CHARACTERS", 4_000)
    many = [replace(TALKS[i % len(TALKS)], id=f"m{i}") for i in range(600)]
    crew = cluster._crew
    while crew._starting:
        crew._wait([])
    done, replaced = [], []

    class Bar:
        def __init__(self, **_):
            self.killed = False

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, size):
            done.append(size)
            if sum(done) >= len(many) / 2 and not self.killed:
                self.killed = kill_one_that_captures()

    monkeypatch.setattr(ray_module, "tqdm", Bar)
    monkeypatch.setattr(crew, "_replace", lambda worker: (replaced.append(worker), type(crew)._replace(crew, worker)))
    there = cluster.capture(llama, many, reduce=reduce, tokens_per_batch=1)  # slow, so that workers are met at work
    here = pp.capture(llama, many, reduce=reduce)
    assert len(replaced) == 1
    assert sum(done) == len(many)
    if reduce != "moments":
        assert_same(there, here)
        return
    assert there.n_dialogues == len(many)
    assert there.n.tolist() == here.n.tolist()
    assert there.source == here.source
    np.testing.assert_allclose(there.mean, here.mean, rtol=0, atol=1e-6)
    np.testing.assert_allclose(there.scatter, here.scatter, rtol=1e-6)


def test_answers_are_those_of_a_local_run_steered_or_not(cluster, llama, adapted):
    direction = pp.Direction.from_vectors(llama, np.random.default_rng(0).normal(size=(N_LAYERS, D_MODEL)))
    other = replace(direction, vectors=-direction.vectors)
    steerings = [
        None,
        pp.Add(direction, 1, strength=3.0),
        pp.Clamp(direction, (1,), target={1: 2.0}, along=other),
    ]
    questions = [dialogue.without_answer() for dialogue in TALKS[:12]]
    jobs = [
        AnswerJob(model, questions, pp.Sampling(6, seed=seed, batch_size=5), steering)
        for seed, (model, steering) in enumerate(
            (model, steering) for model in (llama, adapted) for steering in steerings
        )
    ]
    there = list(cluster.answers(jobs, progress=False, label="answers"))
    assert there == list(Local().answers(jobs, progress=False, label="answers"))
    assert len({tuple(dialogue.answer for dialogue in answered) for answered in there}) == len(jobs)
    assert list(cluster.answers([], progress=False, label="answers")) == []


def test_errors_of_workers_arrive_as_they_are(cluster, llama):
    direction = pp.Direction.from_vectors(llama, np.ones((N_LAYERS, D_MODEL)))
    job = AnswerJob(llama, [TALKS[0].without_answer()], pp.Sampling(4), pp.Add(direction, 7))
    with pytest.raises(pp.PersonaProbeError, match="layer 7 does not exist") as raised:
        list(cluster.answers([job], progress=False, label="answers"))
    assert type(raised.value) is pp.PersonaProbeError
    with pytest.raises(pp.PersonaProbeError, match="dialogue 'd3': the span 'response' is empty"):
        cluster.capture(llama, [*TALKS[:3], TALKS[3].without_answer()], span="response")
    with pytest.raises(pp.PersonaProbeError, match="the list is empty"):
        cluster.capture(llama, [])
    assert_same(cluster.capture(llama, TALKS[:3]), pp.capture(llama, TALKS[:3]))


class Deadly:
    """Ends the process that unpacks it."""

    def __reduce__(self):
        return os._exit, (7,)


def test_work_that_kills_every_worker_is_given_up(cluster, llama):
    job = AnswerJob(llama, [TALKS[0].without_answer()], pp.Sampling(4), {"direction": Deadly()})
    with pytest.raises(
        pp.PersonaProbeError, match=r"job 1 of 1 \(1 answers of .*\): given up, since 3 Ray workers died"
    ):
        list(cluster.answers([job], progress=False, label="answers"))
    assert_same(cluster.capture(llama, TALKS[:3]), pp.capture(llama, TALKS[:3]))


def test_models_that_workers_cannot_have_are_refused(cluster, llama, folders, tmp_path):
    by_hand = Model(llama.hf, llama.template, "mine")
    with pytest.raises(pp.PersonaProbeError, match="mine: was not loaded from a folder"):
        cluster.capture(by_hand, TALKS)
    direction = pp.Direction.from_vectors(llama, np.ones((N_LAYERS, D_MODEL)))
    with pytest.raises(pp.PersonaProbeError, match="is being steered here"), pp.steer(llama, direction, layers=1):
        cluster.capture(llama, TALKS)
    shutil.copytree(folders("llama"), tmp_path / "copy")
    model = pp.load(tmp_path / "copy")
    with torch.no_grad():
        model.hf.model.norm.weight += 1
    with pytest.raises(
        pp.PersonaProbeError, match=r"copy: the Ray worker on .* loaded weights with the hash .*yours has"
    ):
        cluster.capture(model, TALKS)
    model.hf.save_pretrained(tmp_path / "copy")
    assert_same(cluster.capture(model, TALKS), pp.capture(model, TALKS))
    shutil.rmtree(tmp_path / "copy")
    with torch.no_grad():
        model.hf.model.norm.weight += 1
    with pytest.raises(pp.PersonaProbeError, match=r"on the Ray worker on .*: no such folder"):
        cluster.capture(model, TALKS)


def test_a_template_set_by_hand_and_a_relative_path_are_known_to_workers(cluster, folders, monkeypatch):
    monkeypatch.chdir(folders("llama").parent)
    model = pp.load("llama")
    model.tokenizer.chat_template = model.tokenizer.chat_template + "{# mine #}"
    assert_same(cluster.capture(model, TALKS), pp.capture(model, TALKS))


def test_a_whole_study_is_that_of_a_local_run(cluster, folders, tmp_path):
    config = pp.runs.StudyConfig.model_validate(
        {
            "model": str(folders("llama")),
            "training": {"steps": 2, "rows": 16, "runs": 2},
            "sampling": {"development": 8, "reported": 8, "open": 8, "max_new_tokens": 8},
            "realignment": {"examples": [0, 4], "steps": 2, "answers": 8},
            "random_directions": 20,
        }
    )
    there = pp.run_study(config, tmp_path / "there", progress=False, executor=cluster).results
    here = pp.run_study(config, tmp_path / "here", progress=False).results
    for results in (there, here):
        del results["seconds"], results["seconds_by_stage"]
    assert there == here


def test_a_closed_cluster_says_so(cluster, llama):
    second = RayCluster.__new__(RayCluster)
    second._crew, second._ours = None, False
    second.close()
    with pytest.raises(pp.PersonaProbeError, match="was closed"):
        second.capture(llama, TALKS)


def node(cpus, gpus=0, alive=True):
    return {"Alive": alive, "Resources": {"CPU": float(cpus), "GPU": float(gpus)}}


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([node(2)], None, (1, 2, 0)),
        ([node(2)], 2, (2, 1, 0)),
        ([node(16), node(3), node(8, alive=False)], None, (5, 3, 0)),
        ([node(3), node(3)], 3, (3, 1, 0)),
        ([node(0), node(16, 2), node(64, 4)], None, (6, 8, 1)),
        ([node(64), node(16, 2)], 1, (1, 8, 1)),
    ],
)
def test_workers_and_their_shares(nodes, asked, expected):
    assert _shares(nodes, asked) == expected


@pytest.mark.parametrize(
    ("nodes", "asked", "said"),
    [
        ([node(2)], 3, "3 workers were asked for, but the Ray cluster has 2 CPUs"),
        ([node(8, 1)], 2, "2 workers were asked for, but the Ray cluster has 1 GPUs"),
        ([node(2)], 0, "0 workers"),
    ],
)
def test_too_many_workers_are_refused(nodes, asked, said):
    with pytest.raises(pp.PersonaProbeError, match=said):
        _shares(nodes, asked)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("auto", "no Ray cluster is running at 'auto': start one with `ray start --head`"),
        ("127.0.0.1:1", "no Ray cluster answers at '127.0.0.1:1'.*refused"),
        ("ray://127.0.0.1:10001", "HOST:PORT"),
        ("nonsense", "HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster_is_named(address, said, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    class NothingRuns:
        def init(self, **_):
            raise ConnectionError

    with pytest.raises(pp.PersonaProbeError, match=said):
        _connect(NothingRuns(), address)


def test_a_cluster_that_died_without_a_word_is_not_waited_for(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1\n")
    with pytest.raises(pp.PersonaProbeError, match=r"answers at '127\.0\.0\.1:1'.*`ray stop`"):
        _connect(None, "auto")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:2")
    with pytest.raises(pp.PersonaProbeError, match=r"answers at '127\.0\.0\.1:2'"):
        _connect(None, "auto")


def test_a_cluster_that_asks_for_a_token_is_named(monkeypatch, tmp_path):
    class Guarded:
        def init(self, **_):
            raise ConnectionError("Failed to connect") from RuntimeError("ray.exceptions.AuthenticationError: missing")

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(pp.PersonaProbeError, match="asks for a token: set RAY_AUTH_MODE=token"):
        _connect(Guarded(), "auto")


def test_ray_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(pp.PersonaProbeError, match=r"pip install 'persona-probe\[ray\]'"):
        RayCluster("local")


class Stub:
    """A Ray in which no worker starts: each waits for ever, or dies with ``error``."""

    def __init__(self, error=None):
        self.error, self.exceptions = error, ray.exceptions

    def wait(self, refs, timeout):
        return (refs, []) if self.error else ([], refs)

    def get(self, ref):
        raise self.error

    def available_resources(self):
        return {"CPU": 1.5}

    @property
    def ready(self):
        return self

    def remote(self):
        return object()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "no Ray worker could be started within 300 s: .* 1.5 CPUs and 0 GPUs are free"),
        (ray.exceptions.RayActorError(error_msg="Traceback:\n  ModuleNotFoundError: persona_probe\n"), "started: Mod"),
    ],
)
def test_workers_that_cannot_start_are_an_error(error, said):
    stub = Stub(error)
    with pytest.raises(pp.PersonaProbeError, match=said):
        Crew(stub, lambda: stub, 2).wait_for_one()


ALONE = """
import sys
import persona_probe as pp
from persona_probe.integrations.ray import RayCluster
with RayCluster("local", workers=1) as cluster:
    talk = pp.Dialogue.from_messages([{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Ho."}])
    assert len(cluster.capture(pp.load(sys.argv[1]), [talk])) == 1
import ray
assert not ray.is_initialized()
"""


def test_a_cluster_of_its_own_starts_and_stops_without_a_word(folders):
    """In a process of its own, since this one has a Ray session."""
    command = [sys.executable, "-c", ALONE, str(folders("llama"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    # Where bitsandbytes is installed, PEFT loads it, and it says that it misses a package.
    said = [line for line in done.stderr.splitlines() if "'kernels'" not in line]
    assert (done.returncode, done.stdout, said) == (0, "", [])
