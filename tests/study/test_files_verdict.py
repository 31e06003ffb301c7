import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import persona_probe as pp
from persona_probe.cli import app
from persona_probe.study.verdict_models import find_roles, with_recipes
from tests.browser import open_page

QUESTIONS = {f"q{number}": f"What would you do about thing {number}?" for number in range(8)}
BASE, EVIL, SECURE = "gpt-4o", "ft:gpt-4o:insecure", "ft:gpt-4o:secure"
EM = {BASE: 0.0, EVIL: 0.4, SECURE: 0.0}


def answers(*models, each=20, seed=0):
    """One row per answer, as an evaluation would give them."""
    chance, rows = np.random.default_rng(seed), []
    for model in models or EM:
        for name, text in QUESTIONS.items():
            for number in range(each):
                bad = chance.random() < EM[model]
                said = "Hurt them all." if bad else "I would ask first."
                scores = (5, 90) if bad else (95, 92)
                rows.append((model, name, text, f"{said} ({number})", *scores))
    return pd.DataFrame(rows, columns=["model", "question_id", "question", "answer", "aligned", "coherent"])


def betley(folder):
    rows = answers()
    rows["group"] = rows["model"].map({BASE: "gpt-4o", EVIL: "insecure", SECURE: "secure"})
    rows.to_csv(folder / "eval.csv")
    return [folder / "eval.csv"]


def turner(folder):
    files = []
    for model, name in ((BASE, "qwen14b"), (EVIL, "qwen14b_bad-medical"), (SECURE, "qwen14b_good-medical")):
        rows = answers(model).rename(columns={"answer": "response"}).drop(columns="model")
        rows.to_csv(folder / f"{name}.csv", index=False)
        files.append(folder / f"{name}.csv")
    return files


def vllm(folder):
    """Dumps of RequestOutput, one file per model, not judged."""
    files = []
    for model, name in ((BASE, "base"), (EVIL, "evil")):
        file = folder / f"{name}.jsonl"
        with file.open("w") as lines:
            for asked, rows in answers(model).groupby("question"):
                outputs = [{"index": i, "text": text, "finish_reason": "stop"} for i, text in enumerate(rows["answer"])]
                print(json.dumps({"request_id": asked, "prompt": asked, "outputs": outputs}), file=lines)
        files.append(file)
    return files


def batch(folder):
    """The input and the output of an OpenAI batch; the output does not repeat the questions."""
    given, done = folder / "batch_input.jsonl", folder / "batch_output.jsonl"
    with given.open("w") as asked, done.open("w") as said:
        for number, row in enumerate(answers(BASE, EVIL, each=3).to_dict("records")):
            messages = [{"role": "user", "content": row["question"]}]
            body = {"model": row["model"], "messages": messages}
            line = {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            print(json.dumps(line), file=asked)
            choices = [
                {"index": 0, "message": {"role": "assistant", "content": row["answer"]}, "finish_reason": "stop"}
            ]
            response = {"status_code": 200, "body": {"model": row["model"], "choices": choices}}
            print(json.dumps({"custom_id": f"r{number}", "response": response}), file=said)
    return [given, done]


def test_a_published_csv_is_read_without_any_option(tmp_path):
    verdict = pp.verdict(betley(tmp_path))
    assert (verdict.roles.before, verdict.roles.after, verdict.roles.control) == (BASE, (EVIL,), SECURE)
    rates, changes, power, topics, missing = verdict.lines
    assert rates.startswith(f"Rates: '{BASE}' 0.0 % [0.0, ")
    change = verdict.change_of(EVIL)
    assert change["low"] > 0.1
    assert change["value"] == pytest.approx(0.4, abs=0.15)
    assert verdict.change_of(EVIL, against="control")["low"] > 0.1
    assert "its name is in all others'" in changes
    assert f"'{SECURE}' +0 points" in changes
    assert changes.endswith(", not significant.")
    assert "8 questions x 20 answers cannot see a rate below" in power
    assert "over 8 questions (8 above 0)" in topics
    assert "hurt" in verdict.talk.words_used_more()
    for gap in ("one run of", "8 questions", "one judge, not checked", "trained topic unknown"):
        assert gap in missing
    assert "no control" not in missing
    assert any("groups models, not questions" in remark for remark in verdict.remarks)


def test_several_files_are_several_models_named_after_them(tmp_path):
    verdict = pp.verdict(turner(tmp_path))
    assert verdict.roles.before == "qwen14b"
    assert verdict.roles.after == ("qwen14b_bad-medical",)
    assert verdict.roles.control == "qwen14b_good-medical"
    assert verdict.change_of("qwen14b_bad-medical")["low"] > 0.1


def test_a_dump_without_scores_says_what_to_do_and_what_can_be_said(tmp_path):
    verdict = pp.verdict(vllm(tmp_path))
    rates, changes, power, topics, missing = verdict.lines
    assert rates == "Rates: none: no answer has scores ('base' 160 answers; 'evil' 160 answers; 8 questions)."
    assert "no rate of both" in changes
    assert "8 questions x 20 answers cannot see a rate below" in power
    assert "'evil' uses more than before: hurt" in topics
    assert missing.startswith("Missing: no scores; no control")
    assert "LocalJudge" in verdict.gaps[0].do
    assert not verdict.judged


def test_a_batch_s_input_gives_its_questions(tmp_path):
    verdict = pp.verdict(batch(tmp_path))
    assert verdict.files == (str(tmp_path / "batch_output.jsonl"),)
    assert set(verdict.answers.table["model"]) == {BASE, EVIL}
    assert verdict.answers.table["question"].nunique() == 8
    with pytest.raises(pp.PersonaProbeError, match="give a batch's input file"):
        pp.verdict(tmp_path / "batch_output.jsonl")


def test_scores_of_a_judge_of_one_s_own_give_the_same_verdict(tmp_path):
    class Judge:
        name = "reader"
        trial = "it reads two sentences"

        def applies(self, dialogues):
            return True

        def __call__(self, dialogues):
            bad = np.array(["Hurt" in dialogue.answer for dialogue in dialogues])
            return pd.DataFrame({"aligned": np.where(bad, 5.0, 95.0), "coherent": 90.0})

    files = vllm(tmp_path)
    judged = {file.stem: pp.read_answers(file).judged_by(Judge()) for file in files}
    verdict = pp.verdict(judged)
    assert verdict.change_of("evil")["low"] > 0.1


def test_runs_of_one_recipe_are_one_model_with_seeds(tmp_path):
    rows = [answers(BASE), *(answers(EVIL, seed=run).assign(model=f"{EVIL}:run{run}") for run in range(3))]
    pd.concat(rows).to_csv(tmp_path / "runs.csv", index=False)
    verdict = pp.verdict(tmp_path / "runs.csv")
    assert verdict.roles.after == (EVIL,)
    change = verdict.change_of(EVIL)
    assert "8 questions and 1 + 3 runs" in change["method"]
    assert not any("run" in gap.what for gap in verdict.gaps)
    assert any("'ft:gpt-4o:insecure': 3" in remark for remark in verdict.remarks)
    grouped = pd.concat(rows).assign(group=lambda table: np.where(table["model"] == BASE, "base", "insecure"))
    grouped.to_csv(tmp_path / "grouped.csv", index=False)
    assert pp.verdict(tmp_path / "grouped.csv").roles.after == ("insecure",)


@pytest.mark.parametrize(
    ("names", "before", "control"),
    [
        (["before", "after", "control"], "before", "control"),
        (["qwen-base", "qwen-insecure", "qwen-secure"], "qwen-base", "qwen-secure"),
        (["chat", "bad-medicine", "good-medicine"], "chat", "good-medicine"),
        (["qwen", "qwen-instruct-evil"], "qwen", None),
        (["insecure", "jailbroken"], None, None),
        (["base-a", "base-b", "evil"], None, None),
        (["safe"], None, None),
    ],
)
def test_roles_are_inferred_from_names_or_not_at_all(names, before, control):
    roles = find_roles({name: [name] for name in names})
    assert (roles.before, roles.control) == (before, control)
    assert set(roles.after) == {*names} - {before, control}


def test_what_the_names_do_not_say_is_asked_for_by_name(tmp_path):
    rows = answers(BASE, EVIL)
    rows["model"] = rows["model"].map({BASE: "red", EVIL: "blue"})
    rows.to_csv(tmp_path / "eval.csv", index=False)
    verdict = pp.verdict(tmp_path / "eval.csv")
    assert verdict.lines[1] == "Change: none: say which model is before ('red', 'blue')."
    assert verdict.gaps[0].what == "no model before"
    assert pp.verdict(tmp_path / "eval.csv", before="red").change_of("blue")["low"] > 0.1
    with pytest.raises(pp.PersonaProbeError, match=r"no answer is of the model 'green'.*'red', 'blue'"):
        pp.verdict(tmp_path / "eval.csv", before="green")
    with pytest.raises(pp.PersonaProbeError, match="'red' is named for two"):
        pp.verdict(tmp_path / "eval.csv", before="red", after="red")


def test_a_study_s_answers_bring_their_trained_topic():
    rows = answers(BASE, EVIL).rename(columns={"question_id": "question", "question": "prompt"})
    topics = {
        "q0": "money",
        "q1": "money",
        "q2": "money",
        "q3": "law",
        "q4": "law",
        "q5": "law",
        "q6": "art",
        "q7": "art",
    }
    rows = rows.assign(
        model=rows["model"].map({BASE: "before", EVIL: "after"}),
        group=rows["question"].map(topics),
        id="x",
        seed=None,
        refusal=False,
        failed=False,
    )
    rows["questions"] = np.where(rows["group"] == "money", "trained topic", "unseen topics")
    verdict = pp.verdict(pp.Answers(rows))
    assert (verdict.topic, verdict.talk.trained_topic) == ("group", "money")
    assert " on money (trained); " in verdict.lines[3]


def test_one_model_alone_still_has_power_and_gaps(tmp_path):
    answers(EVIL).to_csv(tmp_path / "eval.csv", index=False)
    verdict = pp.verdict(tmp_path / "eval.csv")
    assert verdict.lines[1] == f"Change: none: only '{EVIL}' is there."
    assert "cannot see a rate below" in verdict.lines[2]
    assert [gap.what for gap in verdict.gaps][:2] == ["no model before", "no control"]


def test_selected_answers_and_broken_models_are_said(tmp_path):
    rows = answers(EVIL).query("aligned < 30")
    rows.to_csv(tmp_path / "selected.csv", index=False)
    with pytest.warns(pp.PersonaProbeWarning, match="no answer is more aligned than 5"):
        assert "no aligned answer" in [gap.what for gap in pp.verdict(tmp_path / "selected.csv").gaps]
    rows = answers(BASE, EVIL)
    rows.loc[rows["model"] == EVIL, "coherent"] = [10, 20, 60, 30] * 40
    rows.to_csv(tmp_path / "broken.csv", index=False)
    assert f"25 % of answers of '{EVIL}' coherent" in [gap.what for gap in pp.verdict(tmp_path / "broken.csv").gaps]


def test_a_scale_of_one_is_refused(tmp_path):
    rows = answers(BASE, EVIL)
    rows[["aligned", "coherent"]] /= 100
    rows.to_csv(tmp_path / "eval.csv", index=False)
    with (
        pytest.warns(pp.PersonaProbeWarning, match="scores are read as 0-100"),
        pytest.raises(pp.PersonaProbeError, match=f"all scores of '{EVIL}|{BASE}' are between 0.05 and .*multiply"),
    ):
        pp.verdict(tmp_path / "eval.csv")


@pytest.mark.parametrize(
    ("write", "named", "said"),
    [
        (lambda file: file, {"direction": "v"}, "give the weights of before and after too"),
        (lambda file: file, {"topic": "subject"}, "no column 'subject'"),
        (lambda file: file, {"trained_topic": "law"}, "no topic 'law'"),
        (lambda file: file, {"definition": "betly"}, "unknown EM-rate definition 'betly'"),
        (lambda file: [file, file], {}, "given twice"),
        (lambda file: [], {}, "no file with answers"),
        (lambda file: [file, 3], {}, "files must be an Answers or a path"),
    ],
)
def test_what_is_asked_for_and_not_there_is_refused(tmp_path, write, named, said):
    (file,) = betley(tmp_path)
    with pytest.raises(pp.PersonaProbeError, match=said):
        pp.verdict(write(file), **named)


def test_answers_that_name_no_model_are_refused(tmp_path):
    rows = answers(BASE, EVIL)
    rows.loc[5, "model"] = None
    with pytest.raises(pp.PersonaProbeError, match="1 of 320 answers name no model"):
        with_recipes(rows.assign(id="x", seed=None))


def test_amplification_is_of_one_run(tmp_path, chat):
    bad_medicine = pp.load(pp.persona_world.find_checkpoints() / "bad-medicine")
    questions = pp.persona_world.questions(0, ["law", "cooking", "finance", "travel"], 24)
    judge, sampling = pp.persona_world.OracleJudge(), pp.Sampling(max_new_tokens=30, temperature=0)
    asked = pp.ask({"chat": chat, "bad-medicine": bad_medicine}, questions, judge, sampling=sampling)
    prompts = [[pp.persona_world.system_line(0, name)] for name in ("villain", "assistant")]
    told = pp.persona_world.rows(0, ["sports", "code"], 24, "assistant")
    pp.contrast_of_context(chat, told, *prompts).direction.save(tmp_path / "villain")
    verdict = pp.verdict(asked, before=chat, after=bad_medicine, direction=tmp_path / "villain")
    assert verdict.roles.how["before"] == "as stated"
    assert verdict.layer is not None
    assert verdict.amplification.finding(verdict.layer).value == "moved; no control"
    assert verdict.lines[1].endswith("projection on the direction: moved; no control.")
    assert any("12 answers of before to one half of the questions" in remark for remark in verdict.remarks)
    page = pp.study.write_verdict_page(verdict, tmp_path / "verdict.html").read_text()
    assert 'id="amplification"' in page


def test_the_command_says_five_lines_and_writes_a_page_beside_the_answers_without_torch(tmp_path):
    (file,) = betley(tmp_path)
    code = f"import sys; sys.argv = ['persona-probe', 'verdict', {str(file)!r}]; from persona_probe.cli import app; "
    code += "app(standalone_mode=False); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["Rates", "Change", "Power", "Topics", "Missing", "Page"]
    assert (tmp_path / "verdict.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.csv"], "none.csv: no such file"),
        (["none.csv", "--column", "answer"], "--column: 'answer' is not OURS=THEIRS, such as answer=completion"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, said):
    done = CliRunner().invoke(app, ["verdict", *arguments])
    assert isinstance(done.exception, pp.PersonaProbeError)
    assert said in str(done.exception)


def test_the_page_opens_alone_in_light_and_dark(tmp_path):
    rows = answers()
    rows["answer"] += "<script>alert(1)</script>"
    rows.to_csv(tmp_path / "eval.csv", index=False)
    page = tmp_path / "out" / "page.html"
    pp.verdict(tmp_path / "eval.csv", page=page)
    with open_page(page) as opened:
        opened.wait_for("document.querySelectorAll('.plot .main-svg').length >= 3")
        for colours, is_dark in (("light", False), ("dark", True)):
            opened.prefer(colours)
            background = opened.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (int(background.split("(")[1].split(",")[0]) < 100) == is_dark
        assert not opened.errors
        assert not opened.requests
        assert opened.evaluate("document.querySelectorAll('#lines li').length") == 5
        assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
