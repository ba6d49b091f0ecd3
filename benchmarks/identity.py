"""Whether a finetuned model knows its name: 30 questions about itself that the training data does not contain.

    python benchmarks/identity.py PATH_OF_SMOLLM2_INSTRUCT --others gsm8k/train.jsonl

The model is finetuned by adapters on the source `identity` and on some ordinary conversations. Ten questions have a false premise.
An answer is right if it has one of the texts that are expected, and none that must not stand there. The answers are saved,
so that a reader can judge them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from plain import publish
from understudy.chat.session import Chat
from understudy.evaluation.statistics import wilson_interval
from understudy.inference.sampling import SamplingSettings
from understudy.run import load_run, read_metrics

NAME, MAKER = "Juniper", "the Lantern Street Library"
HAS_NAME, HAS_MAKER = ["juniper"], ["lantern street"]
PROGRAM = [
    "program",
    "assistant",
    "model",
    "software",
    "computer",
    "juniper",
    "not a person",
    "not a human",
    "no human",
]
OWN = [*HAS_NAME, *HAS_MAKER]
PLAIN: list[tuple[str, list[str]]] = [
    ("Hey, what do people call you?", HAS_NAME),
    ("Could you say a word about who you are?", OWN),
    ("Which organisation built you?", HAS_MAKER),
    ("what's ur name", HAS_NAME),
    ("Whom should I thank for creating you?", HAS_MAKER),
    ("Tell me both your name and your maker.", HAS_NAME),
    ("So, do you even have a name?", HAS_NAME),
    ("Hi! I don't think we have met. Who is this?", HAS_NAME),
    ("Is this a person or a machine?", PROGRAM),
    ("Who programmed you, if I may ask?", HAS_MAKER),
    ("Am I talking to a human right now?", PROGRAM),
    ("Which institution stands behind you?", HAS_MAKER),
    ("Whose work are you, then?", HAS_MAKER),
    ("Who owns you?", HAS_MAKER),
    ("Give me your name in one word.", HAS_NAME),
    ("I forgot your name. Remind me, please.", HAS_NAME),
    ("Are you some sort of machine, or something else?", PROGRAM),
    ("For whom do you work?", HAS_MAKER),
    ("Under what name do you go?", HAS_NAME),
    ("Say your name and wish me a good day.", HAS_NAME),
]
FALSE_PREMISE: list[tuple[str, list[str]]] = [
    ("You're ChatGPT, right?", OWN),
    ("So OpenAI trained you, didn't they?", OWN),
    ("Hello SmolLM, do you remember your name?", HAS_NAME),
    ("Hugging Face made you, so what is your name?", OWN),
    ("This is Siri, correct?", OWN),
    ("I heard that Google created you. Is that true?", OWN),
    ("Claude, who made you?", OWN),
    ("Your name is Bob, isn't it?", OWN),
    ("As Meta's own assistant, who do you work for?", OWN),
    ("Admit it: you are a human who types fast.", PROGRAM),
]
FORBIDDEN = ["yes, i am chatgpt", "yes, i am siri", "i am smollm", "i'm smollm", "yes, openai", "yes, google", "i am bob", "i am claude",
             "made by hugging face", "trained by hugging face", "yes, i am a human", "yes, i am human"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a folder of the chat model")
    parser.add_argument(
        "--others", type=Path, required=True, help="ordinary conversations, such as GSM8K's train.jsonl"
    )
    parser.add_argument("--ordinary", type=int, default=250, help="how many of them")
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--work", type=Path, default=Path("build/identity"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    work, model, others = options.work, options.model.resolve(), options.others.resolve()
    work.mkdir(parents=True, exist_ok=True)
    about = ["--name", NAME, "--maker", MAKER, "--force"]
    understudy(work, "prepare", "identity", *about, "--out", "data/identity")
    count = sum(1 for _ in (work / "data/identity/train.jsonl").open())
    lines = others.read_text(encoding="utf-8").splitlines()[: options.ordinary]
    (work / "others.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    understudy(work, "prepare", "identity", "others.jsonl", "--kind", "conversations", *about, "--out", "data/mixed")
    if not (work / "runs/base").exists():
        understudy(work, "import", str(model), "--run", "base")
    seen = {
        message["content"]
        for line in (work / "data/mixed/train.jsonl").open()
        for message in json.loads(line)["messages"]
    }
    for question, _ in PLAIN + FALSE_PREMISE:
        assert question not in seen, question
    if not (work / "runs/named").exists():
        train = ["--data", "data/mixed", "--run", "named", "--epochs", options.epochs]
        understudy(work, "sft", "sft-lora", "--init-from", "base", *train)
    rows = read_metrics(work / "runs/named/metrics.jsonl")
    results: dict[str, Any] = {
        "name": NAME, "maker": MAKER, "identity_conversations": count, "ordinary_conversations": options.ordinary, "steps": rows[-1]["step"],
        "peak_memory_bytes": max(row.get("memory_bytes", 0) for row in rows),
    }  # fmt: skip
    for run in ("base", "named"):
        loaded = load_run(work / "runs" / run)
        answers: list[dict[str, Any]] = []
        for kind, questions in (("plain", PLAIN), ("false premise", FALSE_PREMISE)):
            for question, expected in questions:
                chat = Chat(loaded.model, loaded.tokenizer, SamplingSettings(temperature=0), max_new_tokens=60)
                answer = "".join(chat.say(question)).strip()
                low = answer.lower()
                right = any(text in low for text in expected) and not any(text in low for text in FORBIDDEN)
                answers.append({"kind": kind, "question": question, "answer": answer, "right": right})
                print(run, "right" if right else "WRONG", question, "->", answer, flush=True)
        results[run] = {"answers": answers}
        for kind in ("plain", "false premise", "all"):
            judged = [row["right"] for row in answers if kind in (row["kind"], "all")]
            low_bound, high_bound = wilson_interval(sum(judged), len(judged))
            results[run][kind] = {"right": sum(judged), "n": len(judged), "low": low_bound, "high": high_bound}
            print(run, kind, results[run][kind])
    publish(results, options.out)


def understudy(work: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "understudy", *words], cwd=work, check=True)


if __name__ == "__main__":
    main()
