"""The playground in a real browser: talk, judge, compare, look inside; and nothing a model writes is ever run.

A judgement is made on SQLite and on PostgreSQL, the rest on SQLite alone; test_feedback_store.py compares the databases.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from databases import DATABASES, empty_database
from serving import make_run, served_run, serving, wait_until
from understudy.feedback.records import AnswerRecord, Judgement
from understudy.feedback.store import FeedbackStore
from understudy.serve.served import Served, ServedRun

pytestmark = pytest.mark.slow
pytest.importorskip("gradio", reason="the playground needs Gradio")
playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by Playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("there is no Chromium here; `apt-get install chromium`", allow_module_level=True)
NASTY = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> **bold** <b>b</b> $$x$$ ![p](http://a.test/p)'

on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)


@pytest.fixture(scope="module", params=DATABASES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeedbackStore]:
    with FeedbackStore(empty_database(request, tmp_path_factory.mktemp("feedback"))) as store:
        yield store


@pytest.fixture(scope="module")
def url(store: FeedbackStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two runs: one that slowly tells a story, and one that answers everything with NASTY."""
    runs = tmp_path_factory.mktemp("runs")
    slow = served_run(make_run(runs / "slow", context_length=512))
    nasty = served_run(make_run(runs / "nasty", seed=1, context_length=512))
    nasty = replace(nasty, suggestions=("Who are you, nasty?",))
    say_always(slow, "Sam found the purse. " * 12, seconds_per_token=0.05)
    say_always(nasty, NASTY)
    with serving(Served({"slow": slow, "nasty": nasty}, store), pages=True) as url:
        yield url


def say_always(run: ServedRun, text: str, seconds_per_token: float = 0.0) -> None:
    """Have a run's engine answer everything with one text; the inspection still shows the run's model."""
    model, hidden, place = run.engine.model, run.engine.model.hidden, 0
    whole = [*run.tokenizer.encode(text), run.tokenizer.special_tokens["<|im_end|>"]]

    def read(tokens: torch.Tensor, *more: Any) -> torch.Tensor:
        nonlocal place
        answering = tokens.shape[1] == 1 and int(tokens[0, 0]) == whole[place]
        place = (place + 1) % len(whole) if answering else 0  # else it reads a prompt
        return hidden(tokens, *more)

    def say(states: torch.Tensor) -> torch.Tensor:
        time.sleep(seconds_per_token)
        out = torch.full((len(states), run.model.config.vocab_size or 0), -20.0)
        out[:, whole[place]] = 20.0
        return out

    model.hidden, model.logits = read, say  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    """A page that has loaded, with its requests and errors."""
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.asked, page.errors = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(url)
    page.wait_for_selector(".talk .greeting")
    assert page.get_by_role("tab").all_inner_texts() == ["Talk", "Compare", "Look inside", "Settings"], "none in a menu"
    yield page
    assert page.errors == [] and all(address.startswith((url, "data:", "blob:")) for address in page.asked)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it fits a phone"
    context.close()


def choose(page: Any, name: str) -> None:
    page.locator("#model input").click()
    page.get_by_role("option", name=name).click()


def enter(page: Any, text: str, box: str = "#say") -> None:
    page.locator(f"{box} textarea").fill(text)
    page.locator(f"{box} textarea").press("Enter")


def say(page: Any, text: str) -> Any:
    """Say something, and wait for the whole answer."""
    answers = page.locator(".assistant .tools").count()
    enter(page, text)
    page.wait_for_function(f"document.querySelectorAll('.assistant .tools').length > {answers}")
    return page.locator(".assistant").last


def stored_answers(store: FeedbackStore, run: str, many: int) -> list[AnswerRecord]:
    """The answers of a run in the store, once there are ``many``."""

    def answers() -> list[AnswerRecord]:
        return [answer for answer in store.answers() if answer.run == run]

    wait_until(lambda: len(answers()) >= many, 20)
    return answers()


def saved(page: Any, expected: str) -> None:
    page.wait_for_selector(f".saved:text('saved: your {expected}')")


def test_talk_stop_judge_and_look_inside(page: Any, store: FeedbackStore) -> None:
    enter(page, "Who found the purse?")
    page.wait_for_selector(".assistant .writing")
    early = page.locator(".assistant .bubble").inner_text()
    page.wait_for_function(f"document.querySelector('.assistant .bubble').textContent.length > {len(early) + 3}")
    assert page.locator(".assistant .writing").count() == 1, "it grows before it is whole"
    page.locator("#say button").last.click()
    page.wait_for_selector(".assistant .remark:text('stopped')")
    [answer] = list(store.answers())
    assert (
        answer.finish_reason == "cancelled"
        and page.locator(".assistant .bubble").inner_text().strip() == answer.text.strip()
    )
    assert answer.prompt == [{"role": "user", "content": "Who found the purse?"}] and answer.run == "slow"

    page.get_by_label("A good answer").click()
    saved(page, "thumb")
    assert "your thumb. It can train a model." in page.locator(".saved").inner_text()
    page.get_by_label("4 of 5").click()
    saved(page, "rating")
    page.locator(".why").click()
    page.locator(".said textarea").fill("'); DROP TABLE answers; --")
    page.locator(".said .save").click()
    page.wait_for_selector(".given.reason")
    page.locator(".correct").click()
    page.locator(".said textarea").fill("Sam found it.")
    page.locator(".said .save").click()
    saved(page, "correction")
    thumb, rating, correction = store.judgements()
    assert {j.answer_id for j in (thumb, rating, correction)} == {answer.id} and thumb.annotator == "anonymous"
    assert (thumb.value, rating.value, rating.comment) == (1, 4, "'); DROP TABLE answers; --")
    assert correction.correction == "Sam found it."

    page.locator(".assistant .look").click()
    page.wait_for_selector(".look .map canvas")
    assert page.locator(".map").count() == 2, "one layer of two heads"
    hovered = page.locator(".token.own").nth(2).get_attribute("title")
    assert re.match(r"(<\.1|\d+(\.\d)?)%; likeliest here:(\n.+%){8}$", hovered), "without a click too"
    page.locator(".token.own").nth(2).click()
    shown = page.locator(".detail").inner_text()
    assert re.search(r"had a probability of (<\.1|\d+(\.\d)?)%", shown) and "layer 1" in shown and "embedding" in shown
    assert page.evaluate("""() => {
        const map = document.querySelector('.big'), data = map.getContext('2d').getImageData(0, 0, map.width, map.height).data;
        return [data[3] > 200, data[4 * (map.width - 1) + 3] === 0];
    }""") == [True, True], "the first token sees itself, and none a later one"  # fmt: skip


@on_sqlite
def test_edit_and_again_ask_anew_in_the_same_conversation(page: Any, store: FeedbackStore) -> None:
    choose(page, "nasty")
    say(page, "One")
    say(page, "Two")
    page.locator(".user .edit").first.click()
    page.locator(".user .said textarea").fill("Uno")
    page.locator(".user .said .save").click()
    page.wait_for_function("document.querySelectorAll('.user').length === 1")
    assert len(stored_answers(store, "nasty", 3)) == 3
    page.wait_for_function("document.querySelectorAll('.assistant .writing').length === 0")
    page.locator(".again").click()
    answers = stored_answers(store, "nasty", 4)
    assert [a.prompt[-1]["content"] for a in answers] == ["One", "Two", "Uno", "Uno"]
    assert len({a.conversation_id for a in answers}) == 1 and len(answers[2].prompt) == 1


@on_sqlite
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hints_have_the_contrast_that_wcag_asks_for(browser: Any, url: str, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(".talk .greeting")
    page.get_by_role("tab", name="Settings").click()
    for hint in (page.locator("#brand p"), page.get_by_text("Stored with your judgements; optional.")):
        assert hint.evaluate("""e => {
            const numbers = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
            const light = ([r, g, b]) => [[r, 0.2126], [g, 0.7152], [b, 0.0722]]
                .map(([c, w]) => w * (c <= 10 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4)).reduce((a, b) => a + b);
            let ground = e;
            while (ground.parentElement && [0, undefined].includes(numbers(getComputedStyle(ground).backgroundColor)[3] ?? 1))
                ground = ground.parentElement;
            const pair = [getComputedStyle(e).color, getComputedStyle(ground).backgroundColor].map((c) => light(numbers(c)));
            return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
        }""") >= 4.5  # fmt: skip
    context.close()


@on_sqlite
def test_only_answers_open_a_stream(page: Any) -> None:
    """Gradio's client waits for an answer in a stream that is gone where another event's was just being closed."""
    choose(page, "nasty")
    say(page, "One")
    page.get_by_label("A good answer").click()
    saved(page, "thumb")
    page.locator(".assistant .look").click()
    page.wait_for_selector(".look .map canvas")
    page.locator("#fresh").click()
    page.wait_for_selector(".talk .greeting")
    calls = [
        address.rpartition("/")[2] for address in page.asked if "run/predict" in address or "queue/join" in address
    ]
    assert sorted(call.partition("?")[0] for call in calls) == ["join", *["predict"] * (len(calls) - 1)]
    assert len(calls) > 4, "loading, judging, looking and leaving"


@on_sqlite
def test_one_need_not_wait_for_gradio_to_end_an_event(
    page: Any, store: FeedbackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An action right after the last piece of an answer takes effect, and the event's last message does not undo it."""
    from gradio import queueing

    send, messages = queueing.Queue.send_message, []

    def hold(queue: Any, event: Any, message: Any) -> None:
        if message.msg == "process_completed":
            messages.append((asyncio.get_running_loop(), queue, event, message))
        else:
            send(queue, event, message)

    def let_go() -> None:
        while messages:
            loop, *message = messages.pop(0)
            loop.call_soon_threadsafe(send, *message)

    monkeypatch.setattr(queueing.Queue, "send_message", hold)
    choose(page, "nasty")
    say(page, "One")
    page.get_by_label("A good answer").click()
    saved(page, "thumb")
    wait_until(lambda: len(messages) == 1)
    let_go()
    page.wait_for_timeout(500)
    saved(page, "thumb")
    assert page.locator(".thumb[aria-pressed=true]").count() == 1
    before = len(stored_answers(store, "nasty", 1))
    say(page, "Two")
    say(page, "Three")
    page.locator(".again").click()
    assert [answer.prompt[-1]["content"] for answer in stored_answers(store, "nasty", before + 3)[-3:]] == [
        "Two",
        "Three",
        "Three",
    ]
    page.get_by_role("tab", name="Compare").click()
    enter(page, "Four", "#ask")
    page.locator(".choice").first.click()
    saved(page, "choice")
    wait_until(lambda: len(messages) == 4)
    let_go()
    page.wait_for_timeout(500)
    saved(page, "choice")


@on_sqlite
def test_a_new_conversation_while_an_answer_comes(page: Any) -> None:
    enter(page, "One")
    page.wait_for_selector(".assistant .writing")
    page.locator("#fresh").click()
    page.wait_for_selector(".talk .greeting")
    page.wait_for_selector("#say .submit-button")
    assert page.locator(".message").count() == 0, "late pieces are not drawn over it"
    choose(page, "nasty")
    say(page, "Two")
    assert page.locator(".user .bubble").all_inner_texts() == ["Two"]


@on_sqlite
def test_text_typed_during_an_answer_stays(page: Any) -> None:
    enter(page, "One")
    page.wait_for_selector(".assistant .writing")
    page.locator("#say textarea").fill("Two")
    early = page.locator(".assistant .bubble").inner_text()
    page.wait_for_function(f"document.querySelector('.assistant .bubble').textContent.length > {len(early) + 3}")
    page.locator("#say textarea").press("Enter")
    page.wait_for_selector("text=an answer is being written; stop it, or wait for it")
    assert page.locator("#say .stop-button").count() == 1
    page.locator("#say button").last.click()
    page.wait_for_selector(".assistant .remark:text('stopped')")
    page.wait_for_selector("#say .submit-button")
    assert page.locator(".user").count() == 1 and page.locator("#say textarea").input_value() == "Two"


@on_sqlite
def test_answers_are_shown_as_text(page: Any, store: FeedbackStore) -> None:
    choose(page, "nasty")
    say(page, "<img src=y onerror=window.hacked=2>")
    bubbles = page.locator(".bubble").all_inner_texts()
    assert bubbles == ["<img src=y onerror=window.hacked=2>", NASTY]
    page.locator(".assistant .look").click()
    page.wait_for_selector(".look .map canvas")
    page.get_by_role("tab", name="Compare").click()
    enter(page, "<b>Both</b>", "#ask")
    page.wait_for_selector(".choice")
    assert "<b>Both</b>" in page.locator(".duel").inner_text()
    assert page.evaluate("window.hacked") is None
    assert page.locator(".bubble img, .bubble b, .look img, .duel img, .duel b").count() == 0


@on_sqlite
def test_two_blind_answers(page: Any, store: FeedbackStore) -> None:
    page.get_by_role("tab", name="Settings").click()
    named = page.get_by_label("Your name")
    named.fill("Ann")
    edge, ground = named.evaluate("e => [getComputedStyle(e).borderTopColor, getComputedStyle(e).backgroundColor]")
    assert named.evaluate("e => getComputedStyle(e).borderTopWidth") == "1px" and edge != ground, "one sees the box"
    page.get_by_role("tab", name="Compare").click()
    enter(page, "Who is it?", "#ask")
    page.wait_for_selector(".choice")
    assert page.locator(".duel .model").count() == 0, "nobody says whose they are"
    texts = page.locator(".card .text").all_inner_texts()
    page.locator(".choice", has_text="B is better").click()
    saved(page, "choice")
    judgement = store.judgements()[-1]
    assert (judgement.kind, judgement.value, judgement.annotator) == ("comparison", -1, "Ann")
    pair = [store.answer(judgement.answer_id), store.answer(judgement.other_answer_id or "")]
    assert [answer.text.strip() for answer in pair if answer] == [text.strip() for text in texts]
    assert {answer.run for answer in pair if answer} == {"slow", "nasty"}
    models = page.locator(".duel .model").all_inner_texts()
    assert models == [f"{answer.run}, step 1" for answer in pair if answer], "and now it is said"


@on_sqlite
def test_a_judgement_is_saved_at_the_click_shown_and_taken_back(page: Any, store: FeedbackStore) -> None:
    choose(page, "nasty")
    say(page, "Judge me")
    [answer] = [answer for answer in store.answers() if answer.prompt[-1]["content"] == "Judge me"]

    def judgements() -> list[tuple[str, Any]]:
        given = [j for j in store.judgements() if j.answer_id == answer.id]
        return [(judgement.kind, judgement.correction or judgement.value) for judgement in given]

    page.get_by_label("A bad answer").click()
    saved(page, "thumb")
    assert page.evaluate("document.activeElement.ariaLabel") == "A bad answer", "the keyboard stays where it was"
    assert page.locator("#talk-view .live").inner_text() == page.locator(".saved").inner_text(), "screen readers say it"
    page.get_by_label("3 of 5").click()
    saved(page, "rating")
    assert judgements() == [("thumb", -1), ("rating", 3)], "without Save"
    page.locator(".correct").click()
    page.locator(".said textarea").fill("Half of a correction")
    page.get_by_label("A good answer").click()
    saved(page, "thumb")
    assert page.locator(".said textarea").input_value() == "Half of a correction", (
        "another judgement keeps an open form"
    )
    page.locator(".said textarea").fill("<b>Better</b>")
    page.locator(".said .save").click()
    saved(page, "correction")
    assert (
        page.locator(".given.correction .text").inner_text() == "<b>Better</b>" and page.locator(".said").count() == 0
    )
    assert judgements() == [("rating", 3), ("thumb", 1), ("correction", "<b>Better</b>")]
    for control, name in (("A good answer", "thumb"), ("3 of 5", "rating")):
        page.get_by_label(control).click()
        page.wait_for_selector(f".saved:text('taken back: your {name}')")
    page.locator(".remove").click()
    page.wait_for_selector(".saved:text('taken back: your correction')")
    assert judgements() == [] and page.locator(".given, .assistant [aria-pressed=true]").count() == 0


@on_sqlite
def test_an_empty_chat_suggests_questions_of_the_model(page: Any, store: FeedbackStore) -> None:
    assert page.locator(".example").count() == 0 and "A correction" in page.locator(".greeting .note").inner_text()
    choose(page, "nasty")
    page.locator("#say textarea").fill("typed before")
    page.get_by_role("button", name="Who are you, nasty?").click()
    page.wait_for_selector(".assistant .tools")
    assert page.locator(".user .bubble").inner_text() == "Who are you, nasty?"
    assert page.locator("#say textarea").input_value() == "typed before"


@on_sqlite
@pytest.mark.parametrize("height", [740, 420])
def test_the_box_and_its_button_stay_on_the_screen(page: Any, height: int) -> None:
    page.set_viewport_size({"width": 360, "height": height})
    choose(page, "nasty")
    for _ in range(3):
        say(page, "Hello")
    for tab, box in (("Talk", "#say"), ("Compare", "#ask")):
        page.get_by_role("tab", name=tab).click()
        page.locator(f"{box} textarea").fill("line\n" * 12)
        button = page.locator(f"{box} button[aria-label=Send]").bounding_box()
        whole = page.locator(box).bounding_box()
        assert button["y"] > 0 and whole["y"] > 100 and whole["y"] + whole["height"] <= height, tab
        assert page.evaluate("document.documentElement.scrollHeight <= innerHeight"), "only the messages scroll"
    page.get_by_role("tab", name="Settings").click()
    page.get_by_label("Seed").wait_for()
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    end = page.get_by_label("Seed").bounding_box()
    assert 0 < end["y"] < end["y"] + end["height"] <= height, "here the page scrolls"


@on_sqlite
def test_enter_sends_and_shift_enter_begins_a_line(page: Any) -> None:
    choose(page, "nasty")
    box = page.get_by_label("Message")
    box.fill("One")
    box.press("Shift+Enter")
    box.type("```")
    box.press("Shift+Enter")
    box.type("x = 1")
    box.press("Enter")
    page.wait_for_selector(".assistant .tools")
    assert page.locator(".user pre").inner_text() == "x = 1" and box.input_value() == "", (
        "a fence makes a block of code"
    )
    page.locator(".assistant .look").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".look .map canvas")
    page.locator(".token[tabindex='0']").focus()
    chosen = page.locator(".token[aria-selected=true]").get_attribute("title")
    page.keyboard.press("ArrowRight")
    assert page.locator(".token[tabindex='0']").count() == 1, "one stop of the Tab key"
    assert page.locator(".token[aria-selected=true]:focus").get_attribute("title") != chosen


@on_sqlite
def test_a_conversation_comes_back_after_new_and_after_a_reload(page: Any) -> None:
    choose(page, "nasty")
    say(page, "One")
    page.get_by_label("A good answer").click()
    saved(page, "thumb")
    page.reload()
    page.wait_for_selector(".thumb.up[aria-pressed=true]")
    choose(page, "nasty")
    say(page, "Two")
    page.locator("#fresh").click()
    page.wait_for_selector(".back")
    page.reload()
    page.locator(".back").click()
    page.wait_for_selector(".assistant >> nth=1")
    assert page.locator(".user .bubble").all_inner_texts() == ["One", "Two"]
    page.evaluate("sessionStorage.setItem('understudy-conversation', 'of another server')")
    page.reload()
    page.wait_for_selector(".problem:text('no longer on the server')")


@on_sqlite
def test_a_reload_during_an_answer_keeps_its_question(page: Any) -> None:
    enter(page, "One")
    page.wait_for_function("(document.querySelector('.assistant .bubble')?.textContent.length || 0) > 3")
    page.reload()
    page.wait_for_selector(".assistant .remark:text('stopped')")
    assert page.locator(".user .bubble").all_inner_texts() == ["One"]
    assert len(page.locator(".assistant .bubble").inner_text()) > 3
    choose(page, "nasty")
    say(page, "Two")
    assert page.locator(".user .bubble").all_inner_texts() == ["One", "Two"]


@on_sqlite
def test_a_refused_message_says_why_and_stays_in_the_box(page: Any) -> None:
    page.get_by_role("tab", name="Settings").click()
    page.get_by_label("Seed").fill("seven")
    for tab, box in (("Talk", "#say"), ("Compare", "#ask")):
        page.get_by_role("tab", name=tab).click()
        enter(page, "Hello", box)
        page.wait_for_selector(".problem[role=alert]:visible:text('the seed is no whole number')")
        page.wait_for_function(f"document.querySelector('{box} textarea').value === 'Hello'")
        page.locator(f"{box} .submit-button").wait_for()
    assert page.locator(".toast-body, .message").count() == 0


def test_layers_without_attention_are_named(browser: Any, tmp_path: Path) -> None:
    run = served_run(make_run(tmp_path / "conv", family="lfm2", n_layers=3, conv_layers=(0, 2), n_heads=2))
    with serving(Served({"conv": run}), pages=True) as url:
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector(".talk .greeting")
        assert page.locator(".greeting .note").count() == 0, "nothing is stored, so nothing can be judged"
        say(page, "Who?")
        page.locator(".assistant .look").click()
        page.wait_for_selector(".look .map canvas")
        assert page.locator(".map").count() == 2 and page.locator(".thumb").count() == 0
        assert [text for text in page.locator(".grid").inner_text().split("\n") if text] == [
            f"Layer {n} is a short convolution. It has no attention heads." for n in (1, 3)
        ]
        assert "Layer 2, head" in page.locator(".readout").inner_text()
        page.close()


@on_sqlite
def test_refused_judgements_are_not_reported_as_saved(
    page: Any, store: FeedbackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(judgement: Judgement) -> str:
        raise ValueError("the disk is full")

    choose(page, "nasty")
    say(page, "Hello")
    monkeypatch.setattr(store, "add_judgement", refuse)
    page.get_by_label("A bad answer").click()
    page.wait_for_selector(".saved.refused:text('the disk is full')")
    assert page.locator(".thumb[aria-pressed=true]").count() == 0


@on_sqlite
def test_only_the_page_is_served(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        assert "default-src 'self'" in client.get("/").headers["content-security-policy"]
        for path in (
            "/gradio_api/file=/etc/passwd", "/gradio_api/file=pyproject.toml", "/file=/etc/passwd", "/monitoring",
            "/static/../../../../etc/passwd", "/assets/%2e%2e/%2e%2e/%2e%2e/gradio/__init__.py", "/v1/nothing",
        ):  # fmt: skip
            answer = client.get(path)
            assert answer.status_code in (403, 404) and "root:" not in answer.text, path
        assert client.post("/gradio_api/upload", files={"files": b"x"}).status_code == 404
        assert client.get("/", headers={"Origin": "http://evil.test"}).status_code == 403
        assert client.post("/gradio_api/queue/join", headers={"Origin": "http://evil.test"}).status_code == 403
        assert client.get("/", headers={"Host": "evil.test"}).status_code == 403
        assert client.get("/v1/models").json()["data"][0]["id"] == "slow", "and the API beside it"
        refused = client.get("/v1/chat/completions")
        assert refused.status_code == 405 and "does not take GET" in refused.json()["error"]["message"]


def test_a_key_is_asked_for_before_the_page_is_shown(browser: Any, tmp_path: Path) -> None:
    run = served_run(make_run(tmp_path / "locked"))
    with serving(Served({"locked": run}, None, key="open-sesame"), pages=True) as url:
        assert httpx.get(url).status_code == 401
        context = browser.new_context(http_credentials={"username": "Ann", "password": "open-sesame"})
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector(".talk .greeting")
        page.get_by_role("tab", name="Settings").click()
        page.wait_for_function("[...document.querySelectorAll('textarea, input')].some((box) => box.value === 'Ann')")
        context.close()
