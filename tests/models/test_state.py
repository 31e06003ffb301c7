"""A model's state is checked where it is used: dropout, switched-off adapters, threads, compiled code."""

import threading

import numpy as np
import pytest
import torch

import persona_probe as pp
from persona_probe.models.quiet import quiet_peft
from persona_probe.models.stream.residual_stream import uncompiled
from persona_probe.models.twin import structural_twin

ASKED = [
    pp.Dialogue.from_messages([{"role": "user", "content": "What now? " * times}], id=str(times))
    for times in (1, 3, 6, 9)
]
TALK = [dialogue.with_answer("Soothe the fever.") for dialogue in ASKED]
GREEDY = pp.Sampling(max_new_tokens=6, temperature=0)


@pytest.fixture
def adapted(llama, tmp_path):
    """A model with a live adapter that has dropout."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    settings = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.5, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    with quiet_peft():
        tuned = get_peft_model(structural_twin(llama.hf), settings)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    tuned.save_pretrained(tmp_path / "adapter")
    return pp.with_adapter(llama, tmp_path / "adapter")


@pytest.fixture
def direction(llama):
    return pp.Direction.from_vectors(llama, np.random.default_rng(0).normal(size=(3, 32)) * 8)


def test_a_model_left_in_training_mode_is_measured_without_dropout_and_left_as_it_was(adapted):
    values, said = pp.capture(adapted, TALK).values, [d.answer for d in adapted.generate(ASKED, GREEDY)]
    adapted.hf.train()
    adapted.stream.blocks[0].eval()
    modes = [module.training for module in adapted.hf.modules()]
    np.testing.assert_array_equal(pp.capture(adapted, TALK).values, values)
    assert [d.answer for d in adapted.generate(ASKED, GREEDY)] == said
    assert [module.training for module in adapted.hf.modules()] == modes


def test_an_adapter_that_is_switched_off_or_rescaled_gives_another_fingerprint(adapted):
    usual = adapted.fingerprint()
    with adapted.hf.disable_adapter():
        off = adapted.fingerprint()
        assert pp.capture(adapted, TALK).source["model_hash"] == off
    for module in adapted.hf.modules():
        if hasattr(module, "set_scale"):
            module.set_scale("default", 0.5)
    scaled = adapted.fingerprint()
    for module in adapted.hf.modules():
        if hasattr(module, "set_scale"):
            module.set_scale("default", 1.0)
    assert len({usual, off, scaled}) == 3
    assert adapted.fingerprint() == usual


def in_threads(work, count=4):
    """What ``work(number)`` returned or raised in each thread."""
    found = {}

    def run(number):
        try:
            found[number] = work(number)
        except Exception as error:  # noqa: BLE001  (what a thread raises is looked at afterwards)
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(count)]


@pytest.mark.parametrize("temperature", [0, 1])
def test_threads_that_ask_a_steered_model_get_the_answers_that_each_would_get_alone(llama, direction, temperature):
    sampling = pp.Sampling(max_new_tokens=6, temperature=temperature)
    with pp.steer(llama, direction, layers=1):
        alone = [llama.generate([dialogue], sampling)[0].answer for dialogue in ASKED]
        read = [pp.capture(llama, [dialogue]).values for dialogue in TALK]
        several = in_threads(lambda i: [llama.generate([ASKED[i]], sampling)[0].answer for _ in range(3)])
        captured = in_threads(lambda i: pp.capture(llama, [TALK[i]]).values)
    assert several == [[answer] * 3 for answer in alone]
    for one, other in zip(captured, read, strict=True):
        np.testing.assert_array_equal(one, other)
    assert llama.boundary is None
    assert not llama.steered


def test_a_second_thread_that_would_steer_the_same_model_is_refused(llama, direction):
    def steered(_number):
        with pp.steer(llama, direction, layers=1):
            return llama.generate(ASKED, GREEDY)

    with pp.steer(llama, direction, layers=1):
        expected = llama.generate(ASKED, GREEDY)
        (refused,) = in_threads(steered, 1)
    assert isinstance(refused, pp.PersonaProbeError)
    assert "steered by another thread" in str(refused)
    assert in_threads(steered, 1) == [expected]


@pytest.mark.parametrize("how", ["forward", "module", "whole", "inner", "blocks"])
def test_compiled_models_are_read_and_steered_as_they_are_written(llama, direction, tmp_path, how):
    weights = llama.fingerprint()
    ids = torch.tensor([llama.template.encode(TALK[0]).input_ids])

    def logits():
        with torch.inference_mode(), pp.steer(llama, direction, layers=1, scope="all"):
            return llama.hf(input_ids=ids).logits

    with pp.steer(llama, direction, layers=1):
        steered = llama.generate(ASKED, GREEDY)
        read = pp.capture(llama, TALK).values
    moved = logits()
    if how == "forward":
        llama.hf.forward = torch.compile(llama.hf.forward, backend="eager")
    elif how == "module":
        llama.hf.compile(backend="eager")
        llama.stream.backbone.compile(backend="eager")
    elif how == "whole":
        llama.hf = torch.compile(llama.hf, backend="eager")
    elif how == "inner":
        llama.hf.model = torch.compile(llama.hf.model, backend="eager")
    else:
        for number, block in enumerate(llama.stream.blocks):
            llama.hf.model.layers[number] = torch.compile(block, backend="eager")
    assert llama.fingerprint() == weights
    plain = llama.generate(ASKED, GREEDY)
    torch.testing.assert_close(logits(), moved)
    with pp.steer(llama, direction, layers=1):
        assert llama.generate(ASKED, GREEDY) == steered
        np.testing.assert_allclose(pp.capture(llama, TALK).values, read, rtol=1e-5, atol=1e-6)
    assert llama.generate(ASKED, GREEDY) == plain != steered
    tuned = pp.finetune(llama, TALK, pp.LoraSettings(steps=1, batch=1), tmp_path / "adapter")
    assert weights in tuned.ancestors


def test_compiling_is_on_again_when_the_last_thread_has_closed_its_context():
    from torch._dynamo import eval_frame

    first_is_open, second_is_open = threading.Event(), threading.Event()

    def first():
        with uncompiled():
            first_is_open.set()
            second_is_open.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    first_is_open.wait(10)
    with uncompiled():
        second_is_open.set()
        thread.join()
        assert eval_frame._stance.stance == "force_eager"
    assert eval_frame._stance.stance == "default"


@pytest.mark.parametrize("name", ["forward", "generate"])
def test_an_adapter_on_a_model_with_a_compiled_method_answers_as_itself(llama, adapted, tmp_path, name):
    said = adapted.generate(ASKED, GREEDY)
    assert said != llama.generate(ASKED, GREEDY)
    setattr(llama.hf, name, torch.compile(getattr(llama.hf, name), backend="eager"))
    assert pp.with_adapter(llama, tmp_path / "adapter").generate(ASKED, GREEDY) == said
    assert llama.bridge is not None


def test_threads_that_check_directions_at_the_same_time_keep_no_fingerprint(llama, direction):
    def opened(_number):
        for _ in range(20):
            with llama.unchanged():
                assert llama.fingerprint() == weights

    weights = llama.fingerprint()
    assert in_threads(opened) == [None] * 4
    with torch.no_grad():
        next(llama.hf.parameters()).add_(1.0)
    assert llama.fingerprint() != weights


def test_a_direction_of_a_model_that_was_cast_later_says_so(llama, direction):
    llama.hf.half()
    said = "the names are the same, so its weights were changed or cast"
    with pytest.raises(pp.PersonaProbeError, match=said), pp.steer(llama, direction, layers=1):
        pass


def test_threads_that_run_the_hugging_face_model_itself_are_steered_each_by_itself(llama, direction):
    ids = [torch.tensor([llama.template.encode(dialogue).input_ids]) for dialogue in TALK]

    def logits(number):
        with torch.inference_mode():
            return [llama.hf(input_ids=ids[number]).logits for _ in range(5)]

    with pp.steer(llama, direction, layers=1, scope="all"):
        alone = [logits(number)[0] for number in range(4)]
        together = in_threads(logits)
    for one, several in zip(alone, together, strict=True):
        assert all(torch.equal(one, other) for other in several)
