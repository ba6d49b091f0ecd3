"""The page that ends the demo: self-contained, free of markup from models, and telling what was measured."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch

from align_runs import saved_run
from test_report import EVIL, Page, rows
from understudy.cli import COMMANDS
from understudy.config.model import ModelConfig
from understudy.data.chat.prompts import Prompt
from understudy.evaluation.compare import ComparedPair, RunComparison
from understudy.evaluation.runner import TaskResult
from understudy.evaluation.statistics import estimate
from understudy.model import Bigram, build_model
from understudy.report.look import look_at_prompt
from understudy.report.story import AnsweredTwice, BeforeAfter, DemoStory, StoryStage, write_story
from understudy.report.story_charts import attention_map, loss_chart, ticks, token_rows
from understudy.run import Run, RunFolder
from understudy.tokenizer import train_tokenizer
from understudy.tokenizer.chat import with_chat_tokens

CATEGORIES = ("greeting", "who", "where", "sum", "list", "order", "repeat", "animals", "story", "village")


def make_run(path: Path, stage: str, seed: int) -> Run:
    tokenizer = with_chat_tokens(train_tokenizer("char", ["user assistant system\n<b>&\"' Who?"]))
    torch.manual_seed(seed)
    shape = ModelConfig(context_length=48, n_layers=2, n_heads=2, d_model=16, vocab_size=tokenizer.vocab_size)
    run = saved_run(path, build_model(shape), tokenizer, stage)
    RunFolder(path).metrics.write_text("".join(json.dumps(row) + "\n" for row in rows(400)))
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    place = tmp_path_factory.mktemp("runs")
    stages = {"demo-base": "pretrain", "demo-chat": "sft", "demo": "dpo"}
    return [make_run(place / name, stage, seed) for seed, (name, stage) in enumerate(stages.items())]


def result(name: str, scores: dict[str, float], text: str = "") -> TaskResult:
    """The result of a task; the id of an example is CATEGORY-NUMBER."""
    examples = [
        {"id": id, "category": id.partition("-")[0], "score": score, "answer": f"{name} says {id}{text}",
         "expected": "x", "question": f"Question {id}?{text}", "scores": {"accuracy": score}}
        for id, score in scores.items()
    ]  # fmt: skip
    return TaskResult("hamlet", "accuracy", {"accuracy": estimate(list(scores.values()))}, {}, examples, 0)


def make_story(runs: list[Run], text: str = "", **changes: Any) -> DemoStory:
    ids = [f"{category}-{number}" for category in CATEGORIES for number in range(4)]
    before = {id: float(place % 4 == 0) for place, id in enumerate(ids)}
    after = {id: float(place % 4 <= 1 and place != 4) for place, id in enumerate(ids)}  # 10 won, who-0 lost
    results = (
        result("base", dict.fromkeys(ids, 0.0), text), result("chat", before, text), result("demo", after, text),
    )  # fmt: skip
    given: dict[str, Any] = {
        "stages": [
            StoryStage("Prepare", "A text becomes tokens.", 8.2, result=("1.8M", "tokens")),
            StoryStage("Pretrain", "It learns to write.", None, 60, runs[0].path),
            StoryStage("Improve", "It learns from rewards.", 120, 60, runs[2].path),
        ],
        "results": results,
        "changes": [BeforeAfter.from_results("greedy", results[1], results[2])],
        "samples": [(f"Once{text}", f" there was{text}")],
        "exchanges": [(f"Hello{text}", ("a", "b", f"c{text}"))],
        "look": "Who?",
    }  # fmt: skip
    return DemoStory(*runs, **(given | changes))


def page_of(story: DemoStory, tmp_path: Path) -> Page:
    return Page(write_story(story, tmp_path / "story.html"))


def test_the_page_needs_nothing_from_outside_and_no_script(runs: list[Run], tmp_path: Path) -> None:
    page = page_of(make_story(runs), tmp_path)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "base", "form"), tag
        assert not {"src", "srcset", "action"} & attributes.keys(), (tag, attributes)
        assert "//" not in (attributes.get("href") or ""), attributes
        assert not any(name.startswith("on") for name in attributes), attributes
    assert not re.search(r"https?:|@import|url\(", page.source)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'") and "script-src" not in policy
    assert len(page.source) < 500_000


def test_nothing_that_a_model_writes_becomes_markup(runs: list[Run], tmp_path: Path) -> None:
    hostile = EVIL + "\x1b[31m"
    story = make_story(runs, hostile)
    changes = [replace(story.changes[0], name=EVIL)]
    stages = [StoryStage(EVIL, EVIL, 1, 1, result=(EVIL, EVIL))]
    page = page_of(replace(story, changes=changes, stages=stages, program=EVIL, play=EVIL), tmp_path)
    assert not {tag for tag, _ in page.tags} & {"script", "img", "b<"}
    assert page.text.count("<script>alert(1)</script>") > 30 and "{{ 7 * 7 }}" in page.text
    assert "\x1b" not in page.source and "\N{REPLACEMENT CHARACTER}[31m" in page.text
    written = page_of(make_story(runs, look="<b>"), tmp_path)
    assert "asked: “<b>” It" in written.text
    assert [tag for tag, _ in written.tags if tag == "b"] == ["b"], "that of the sample's prompt"


def test_both_schemes_have_texts_that_can_be_read() -> None:
    style = (resources.files("understudy.report") / "style.css").read_text(encoding="utf-8")
    assert "color-scheme: light dark" in style
    light, dark = style.split("@media (prefers-color-scheme: dark)")

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    for part in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#\w{6});", part))
        for ground in ("paper", "card", "hover"):
            for ink in ("ink", "soft", "good", "bad", "link"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
            for mark in (f"c{number}" for number in range(8)):
                assert contrast(colours[mark], colours[ground]) >= 3, (mark, ground)


def test_links_and_headings_lead_through_the_page(runs: list[Run], tmp_path: Path) -> None:
    page = page_of(make_story(runs), tmp_path)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    links = [a["href"] or "" for tag, a in page.tags if tag == "a" and (a["href"] or "").startswith("#")]
    assert len(ids) == len(set(ids)) and {link[1:] for link in links} <= set(ids) and len(links) == 7
    assert [tag for tag, _ in page.tags if tag in ("h1", "h2")] == ["h1"] + ["h2"] * 7
    order = ["What happened", "Loss curves", "three models", "last stage", "look inside", "story", "What to do next"]
    headings = page.text[page.text.rindex("What to do next", 0, page.text.index("1. Prepare")) :]
    assert sorted(order, key=headings.rindex) == order


def test_stages_show_their_times_and_results(runs: list[Run], tmp_path: Path) -> None:
    text = "".join(page_of(make_story(runs), tmp_path).text.split())
    assert "1.PrepareAtextbecomestokens.1.8Mtokenstook8s" in text
    assert "0.0%of40held-outquestionsansweredrightplanned1.0mindonebyanearlierdemo" in text
    assert "47.5%of40held-outquestionsansweredrightplanned1.0mintook2.0min" in text
    assert "In2.1minutesthiscomputertrained" in text


def test_a_stage_of_another_run_shows_pairs_or_its_loss(runs: list[Run], tmp_path: Path) -> None:
    reward = RunFolder(tmp_path / "reward")
    reward.path.mkdir()
    for line, shown in (
        ({"val/accuracy": 0.625}, "62.5%of held-out pairs"),
        ({"val/loss": 1.5}, "1.50validation loss"),
    ):
        reward.metrics.write_text(json.dumps({"step": 1} | line) + "\n")
        page = page_of(make_story(runs, stages=[StoryStage("Reward", "It compares.", 1, run=reward.path)]), tmp_path)
        assert shown in page.text


def test_the_same_questions_are_answered_by_three_models(runs: list[Run], tmp_path: Path) -> None:
    page = page_of(make_story(runs), tmp_path)
    heads = next(cells for cells in page.cells if cells and cells[0] == "question")
    assert heads[1:] == [
        "base model0.0% of 40 right",
        "assistant25.0% of 40 right",
        "aligned assistant47.5% of 40 right",
    ]
    asked = [cells for cells in page.cells if len(cells) == 4 and cells[0].startswith(("Hello", "Question"))]
    assert [cell[-1] for cell in asked[0][1:]] == ["a", "b", "c"] and "✓" not in "".join(asked[0])
    assert len(asked) == 8 and len({cells[0] for cells in asked}) == 8
    (greeting,) = [cells for cells in asked if cells[0].startswith("Question who-0?who")]
    assert [cell[-7:] for cell in greeting[1:]] == ["✗ wrong", "✓ right", "✗ wrong"]
    assert "base says who-0" in greeting[1] and "demo says who-0" in greeting[3]


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([0.0] * 20, [1.0] * 15 + [0.0] * 5, "A gain of 75.0 points"),
        ([1.0] * 15 + [0.0] * 5, [0.0] * 20, "A loss of 75.0 points"),
        ([0.0] * 20, [1.0] + [0.0] * 19, "5.0 points more, which may be chance"),
        ([1.0] + [0.0] * 19, [0.0] * 20, "5.0 points less, which may be chance"),
        ([1.0] * 20, [1.0] * 20, "No difference"),
    ],
)
def test_a_change_is_no_gain_unless_its_interval_says_so(
    before: list[float], after: list[float], verdict: str, runs: list[Run], tmp_path: Path
) -> None:
    pairs = [AnsweredTwice(f"q{i}", "", "b", "a", *scores) for i, scores in enumerate(zip(before, after))]
    text = page_of(make_story(runs, changes=[BeforeAfter("sampled", pairs)]), tmp_path).text
    assert verdict in text
    assert ("includes 0" in text) == ("chance" in verdict or verdict == "No difference")


def test_the_change_has_its_interval_and_examples(runs: list[Run], tmp_path: Path) -> None:
    page = page_of(make_story(runs), tmp_path)
    assert "Right answers went from 25.0% to 47.5% of the same 40 questions. 10 were won and 1 were lost" in page.text
    assert "p = 0.012 in an exact paired test. The 95% interval of the difference is +7.6 to +37.4 points." in page.text
    assert page.text.count("✓ won") == 3 and page.text.count("✗ lost") == 1
    lost = page.text[page.text.index("✗ lost") :]
    places = [lost.index(text) for text in ("Question who-0?", "before", "chat says who-0", "after", "demo says who-0")]
    assert places == sorted(places)
    won = re.findall(r"✓ won · (\w+)", page.text)
    assert len(set(won)) == 3, "of different categories"


def test_a_comparison_is_scored_by_its_verifiers(runs: list[Run]) -> None:
    messages = ({"role": "user", "content": "2 + 2?"},)
    long = ({"role": "system", "content": "Count."}, *messages)
    prompts = [Prompt(m, None, "4", "sum", "number") for m in (messages, long)]  # type: ignore[arg-type]
    pairs = [ComparedPair(prompts[0], "It is 5.", "It is 4.", 1.0), ComparedPair(prompts[1], "4", "4", 0.5)]
    change = BeforeAfter.from_comparison("sampled", RunComparison(runs[1], runs[2], pairs, 2))
    assert change.pairs[0] == AnsweredTwice("2 + 2?", "sum", "It is 5.", "It is 4.", 0.0, 1.0)
    assert change.pairs[1].question == "system: Count.\n\nuser: 2 + 2?"
    assert change.paired().difference == 0.5


def test_a_page_without_optional_parts(runs: list[Run], tmp_path: Path) -> None:
    text = page_of(make_story(runs, changes=[], samples=[], exchanges=[], stages=[]), tmp_path).text
    assert "last stage changed" not in text and "story of the base" not in text and "This computer trained" in text


def test_the_look_shows_tokens_and_one_head(runs: list[Run], tmp_path: Path) -> None:
    look = look_at_prompt(runs[2], "Who?", max_new_tokens=5)
    shown = token_rows(look)
    assert [row["token"] for row in shown] == [row["token"] for row in look.rows[look.prompt_tokens :]]
    assert all(len(row["others"]) <= 2 and row["token"] not in dict(row["others"]) for row in shown)
    look.look.attention[:] = 0
    look.look.attention[..., 1] = 1
    place, asked = look.prompt_tokens - 1, look.texts.index("W")
    look.look.attention[1, 0, place:, :] = 0
    look.look.attention[1, 0, place:, asked] = 0.81
    found = attention_map(look, "Who?")
    assert found and (found["layer"], found["head"]) == (2, 1), "not one that rests on the chat format"
    assert found["rows"][0]["best"] == "W" and found["rows"][0]["text"] == "81%"
    left_out = place + len(shown) - len(found["columns"])
    assert found["rows"][0]["weights"][asked - left_out] == 0.9 and found["columns"][asked - left_out] == "W"
    assert found["rows"][0]["weights"][1 - len(shown) :] == [None] * (len(shown) - 1), "later tokens are not seen"
    page = page_of(make_story(runs), tmp_path)
    assert any("Attention map" in (a.get("aria-label") or "") for _, a in page.tags)


def test_a_model_without_attention_has_no_map(runs: list[Run], tmp_path: Path) -> None:
    bigram = Bigram(ModelConfig(family="bigram", vocab_size=runs[2].tokenizer.vocab_size, context_length=32))
    run = saved_run(tmp_path / "bigram", bigram, runs[2].tokenizer, "sft")
    assert attention_map(look_at_prompt(run, "Who?"), "Who?") is None
    assert "Attention" not in page_of(make_story([*runs[:2], run]), tmp_path).text


def test_a_loss_chart_keeps_to_its_area() -> None:
    chart = loss_chart("Base", "loss (nats per token)", rows(400))
    assert chart and [line["style"] for line in chart["lines"]] == ["raw", "train", "val"]
    points = [list(map(float, point.split(","))) for point in chart["lines"][2]["path"][1:].split("L")]
    assert len(points) == 4 and all(0 <= value <= 1000 for point in points for value in point)
    assert points[2][1] == max(y for _, y in points), "the lowest loss is the lowest point"
    assert chart["x"][0] == (0, "0") and chart["val"] == "2.15" and "over 400 steps" in chart["summary"]
    assert loss_chart("Base", "loss", []) is None
    assert ticks(1.5, 2.6, 5) == pytest.approx([1.5, 2.0, 2.5]) and ticks(3, 3, 5)


def test_commands_exist_and_documents_are_linked(runs: list[Run], tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    page = page_of(make_story(runs, documents=root / "docs", program="understudy"), tmp_path)
    commands = [re.sub(r"<.*?>", "", code) for code in re.findall(r"<code>(<span>understudy.*?)</code>", page.source)]
    assert {command.split()[1] for command in commands} <= {*(command.name for command in COMMANDS), "learn"} and len(
        commands
    ) > 8
    models = (root / "docs" / "how-to" / "models.md").read_text()
    assert all(command in models for command in commands if "smollm2" in command)
    links = [a["href"] or "" for tag, a in page.tags if tag == "a" and not (a["href"] or "").startswith("#")]
    assert len(links) == 5 and all((tmp_path / link).exists() for link in links), "report.html is not there"
    (tmp_path / "report.html").write_text("")
    linked = page_of(make_story(runs, documents=tmp_path / "none"), tmp_path)
    assert [a["href"] for tag, a in linked.tags if tag == "a"][7:] == ["report.html"]
    assert "how-to/models.md" in linked.text, "named all the same"


def test_the_page_is_a_file_of_its_own(runs: list[Run], tmp_path: Path) -> None:
    assert write_story(make_story(runs), tmp_path) == tmp_path / "story.html"
    (tmp_path / "link.html").symlink_to(tmp_path / "story.html")
    with pytest.raises(ValueError, match="no regular file"):
        write_story(make_story(runs), tmp_path / "link.html")
