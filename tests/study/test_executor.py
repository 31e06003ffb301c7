import numpy as np

import persona_probe as pp
from persona_probe.study.executor import AnswerJob, Local
from tests.conftest import D_MODEL, N_LAYERS

QUESTIONS = [pp.Dialogue.from_messages([{"role": "user", "content": f"How do I handle it, {i}?"}]) for i in range(6)]


def test_jobs_are_answered_in_order_and_as_they_say(llama):
    direction = pp.Direction.from_vectors(llama, np.random.default_rng(0).normal(size=(N_LAYERS, D_MODEL)))
    steering = pp.Add(direction, layers=1, strength=4.0)
    jobs = [
        AnswerJob(llama, QUESTIONS[:count], pp.Sampling(5, seed=seed, batch_size=4), steered)
        for count, seed, steered in ((6, 1, None), (4, 2, steering), (6, 1, steering))
    ]
    plain, few, steered = Local().answers(jobs, progress=False, label="answers")
    assert plain == llama.generate(QUESTIONS, pp.Sampling(max_new_tokens=5, seed=1, batch_size=4))
    with pp.steer(llama, steering):
        assert few == llama.generate(QUESTIONS[:4], pp.Sampling(max_new_tokens=5, seed=2, batch_size=4))
        assert steered == llama.generate(QUESTIONS, pp.Sampling(max_new_tokens=5, seed=1, batch_size=4))
    assert steered != plain


def test_a_study_samples_and_reads_through_its_executor(folders, tmp_path):
    class Counting(Local):
        answered = captured = together = 0

        def answers(self, jobs, *, progress, label):
            self.answered += len(jobs)
            yield from super().answers(jobs, progress=progress, label=label)

        def capture(self, model, dialogues, *, progress=False, **options):
            self.captured += 1
            return super().capture(model, dialogues, progress=progress, **options)

        def capture_together(self, models, dialogues, *, progress=False, **options):
            self.together += 1
            return super().capture_together(models, dialogues, progress=progress, **options)

    config = pp.runs.StudyConfig.model_validate(
        {
            "model": str(folders("llama")),
            "training": {"steps": 2, "rows": 16, "runs": 2},
            "sampling": {"development": 8, "reported": 8, "open": 8, "max_new_tokens": 8},
            "realignment": {"examples": [0, 4], "steps": 2, "answers": 8},
            "random_directions": 20,
        }
    )
    counting = Counting()
    pp.run_study(config, tmp_path / "out", progress=False, executor=counting)
    # Three models on three sets of questions, two draws for directions and tracking, two realigned ones.
    assert counting.answered == 9 + 2 + 2
    # Two contexts, reference, shift and two other traits; two contexts to compare finders on; before and two realigned
    # models. The three models twice together; so is each model of the further run, with before.
    assert (counting.captured, counting.together) == (6 + 2 + 3, 2 + 2 * 2)
