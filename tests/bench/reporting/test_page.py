"""report.html: what is put into it, and what a real browser makes of it."""

import base64
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from bench.reporting.browser_data import embedded, first_difference
from bench.reporting.comparison import Report
from bench.reporting.figures import Figure
from bench.reporting.page import Page, write_page
from bench.reporting.sources import open_run
from bench.reporting.tables import Table
from bench.store.trees import AnswerTrees, StepTree
from bench.store.turn import Turn
from tests.helpers.pages import HOSTILE, page_data
from tests.helpers.runs import make_turn, random_turns, write_run

DOT = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
DRIVER = shutil.which("chromedriver")


def turn(
    question_id: int,
    decoder: str,
    number: int = 1,
    text: str = "a b c",
    accepts=(1, 2),
    ends=(1, 5),
    **changes,
) -> Turn:
    """A turn whose steps end at these characters of its text."""
    fields = {"question_id": question_id, "turn": number, "text": text, "step_ends": list(ends)}
    fields["nodes"] = [4] * len(accepts)
    return make_turn(decoder, accepts, 0.2, **fields | changes)


FAILED = {"text": "", "error": "RuntimeError: <b>out of luck", "finish_reason": "error"}
TURNS = [
    turn(81, "greedy", text=HOSTILE, accepts=(1, 1), ends=(9, len(HOSTILE))),
    turn(81, "dynamic", text=HOSTILE, accepts=(2,), ends=(len(HOSTILE),)),
    turn(81, "greedy", 2, text="one two", accepts=(1, 1), ends=(3, 7)),
    turn(81, "dynamic", 2, text="one three", accepts=(2,), ends=(9,), token_ids=[0, 7]),
    turn(82, "greedy", text="a😀👩‍🚀漢", accepts=(1, 1, 1), ends=(2, 5, 6), category="stem"),
    turn(82, "dynamic", text="a😀👩‍🚀漢", accepts=(2, 1), ends=(2, 6), category="stem"),
    turn(83, "greedy", accepts=(), ends=(), **FAILED),
    turn(83, "dynamic", accepts=(1, 2), ends=(), decode_s=float("nan")),
]
# Its path is far down.
FAR = StepTree([0] * 50 + [49], [5, *[6] * 49, 7], [0.0, *[-0.5] * 49, -1.0], [0, 49, 50])
NEAR = StepTree([0, 0, 1], [7, 5, 6], None, [0])
TREES = AnswerTrees(82, "dynamic", 0, 1, [FAR, NEAR], {5: "<i>$a" * 9, 6: "漢", 7: "␣c"})


ASKED = {81: ("first <u>question</u>?", "second?"), 82: ("third?",)}


@pytest.fixture
def page(tmp_path) -> Path:
    (tmp_path / "dot.png").write_bytes(base64.b64decode(DOT))
    headline = {"decoder": ["greedy", "dynamic"], "tokens/inference": ["1.000", "2.000"]}
    by_category = {"decoder": ["greedy"], "stem": ["1.000"]}
    shown = Page(
        title="a <model> on & questions",
        tables=[
            Table("", pd.DataFrame(headline)),
            Table("By <category>", pd.DataFrame(by_category), "pooled <p>"),
        ],
        figures=[Figure("dot", "A dot", "of one <pixel>", tmp_path / "dot.png")],
        conditions={"run": {"command": "python -m bench.run --model '<b>'"}},
        baselines={"greedy": "greedy", "dynamic": "greedy"},
        turns=TURNS,
        questions=dict.fromkeys(("greedy", "dynamic"), ASKED),
        trees={TREES.key: TREES},
        verdicts=["dynamic <wins>"],
        warnings=["a <note>"],
    )
    write_page(tmp_path / "report.html", shown)
    return tmp_path / "report.html"


def test_text_cannot_leave_its_place(page):
    html = page.read_text(encoding="utf-8")
    assert html.count("<script") == html.count("</script>") == 2  # The data and the page's own.
    assert "a &lt;model&gt; on &amp; questions" in html and "a &lt;note&gt;" in html
    assert "By &lt;category&gt;" in html and "of one &lt;pixel&gt;" in html
    assert json.loads(embedded(HOSTILE)) == HOSTILE
    assert not set("<>&\u2028") & set(embedded(HOSTILE).decode())
    assert page_data(page)["questions"][0]["answers"][0][3] == HOSTILE


def test_the_first_difference_is_of_tokens_not_of_text():
    base = turn(1, "greedy")
    assert first_difference(turn(1, "dynamic"), base) == -1
    assert first_difference(turn(1, "dynamic", token_ids=[0, 9, 2]), base) == 1
    assert first_difference(turn(1, "dynamic", token_ids=[0, 1], accepts=(2,)), base) == 2
    assert first_difference(turn(1, "dynamic"), None) is None
    assert first_difference(base, base) is None
    # Its tokens are not known.
    assert first_difference(turn(1, "dynamic", accepts=()), base) is None


def test_a_page_that_would_be_too_large_says_what_is_left_out(page, tmp_path, monkeypatch):
    many = [turn(at, "greedy", text="word " * 200, ends=(1, 999)) for at in range(100)]
    headline = Table("", pd.DataFrame({"decoder": ["greedy"]}))
    shown = Page("t", [headline], [], {}, {"greedy": None}, many, {}, {})
    whole = tmp_path / "whole.html"
    write_page(whole, shown)
    assert len(page_data(whole)["questions"]) == 100 and "Left out" not in whole.read_text()
    empty = len(whole.read_bytes()) - 100 * 1100
    limit = empty + 60_000
    monkeypatch.setattr("bench.reporting.page.MOST_BYTES", limit)
    write_page(tmp_path / "cut.html", shown)
    kept = [question["id"] for question in page_data(tmp_path / "cut.html")["questions"]]
    html = (tmp_path / "cut.html").read_text()
    assert 45 <= len(kept) <= 60 and len(html) < limit + 1000
    assert max(b - a for a, b in pairwise(kept)) <= 3  # Spread over the set.
    assert f"the answers to {100 - len(kept)} of 100 questions are not in it" in html
    left_out = re.search(r"Left out: ([\d, -]+)\.", html)[1]
    ranges = re.findall(r"(\d+)(?:-(\d+))?", left_out)
    assert sum(1 + int(last or first) - int(first) for first, last in ranges) == 100 - len(kept)


def test_trees_have_the_words_of_their_own_model(tmp_path):
    """The words of the last model stood in the trees of all."""
    step = StepTree([0, 0], [5, 6], None, [0, 1])
    texts = {"a": {5: "one", 6: "two"}, "b": {5: "eins", 6: "two"}, "c": {5: "one", 7: "three"}}
    trees = [AnswerTrees(1, name, 0, 1, [step], own) for name, own in texts.items()]
    turns = [turn(1, name) for name in texts]
    headline = Table("", pd.DataFrame({"decoder": list(texts)}))
    by_key = {answer.key: answer for answer in trees}
    page = Page("t", [headline], [], {}, dict.fromkeys(texts), turns, {}, by_key)
    write_page(tmp_path / "report.html", page)
    data = page_data(tmp_path / "report.html")
    places = [data["trees"][f"1/{at}/0/1"]["vocabulary"] for at in range(3)]
    assert places == [0, 1, 0]  # Models of one vocabulary share its texts.
    assert data["tokens"] == [{"5": "one", "6": "two", "7": "three"}, {"5": "eins", "6": "two"}]


def entries(sources, path: Path) -> list[tuple]:
    """(id, version, texts, decoders) of the questions on a page of these sources."""
    write_page(path, Report.of(sources).page([]))
    data = page_data(path)
    return [
        (
            each["id"],
            each["version"],
            each["turns"],
            [data["decoders"][answer[0]] for answer in each["answers"]],
        )
        for each in data["questions"]
    ]


def test_answers_to_different_texts_stand_apart(tmp_path):
    """They shared a heading, which said that the text was not recorded."""
    turns = [make_turn("greedy", question_id=number) for number in (1, 2)]
    texts = {"a": "What is 2 + 2?", "b": "Name a river.", "c": "Name a river."}
    for name, text in texts.items():
        write_run(tmp_path / name, turns, question_texts={"1": [text], "2": ["Both?"]})
    write_run(tmp_path / "old", turns)  # It recorded no texts.
    a, b, c, old = (open_run(tmp_path / name) for name in (*texts, "old"))
    page = tmp_path / "report.html"
    assert entries([a, b, c, old], page) == [
        (1, 1, ["What is 2 + 2?"], ["a/greedy"]),
        (2, 1, ["Both?"], ["a/greedy", "b/greedy", "c/greedy", "old/greedy"]),
        (1, 2, ["Name a river."], ["b/greedy", "c/greedy"]),
        (1, 3, [], ["old/greedy"]),
    ]
    assert entries([b, old], page)[0] == (1, 1, ["Name a river."], ["b/greedy", "old/greedy"])
    # Of older runs, the digests of their files tell whether they ask the same.
    for name, digest in (("one", "1"), ("two", "2"), ("again", "1")):
        write_run(tmp_path / name, turns[:1], questions={"name": "sample", "sha256": digest})
    older = [open_run(tmp_path / name) for name in ("one", "two", "again")]
    assert entries(older, page) == [
        (1, 1, [], ["one/greedy", "again/greedy"]),
        (1, 2, [], ["two/greedy"]),
    ]


# --- In a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A headless Chromium that reports what it asks the network for. Users may have none."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("no Chromium with its chromedriver is installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    flags = (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "disable-dev-shm-usage",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    )
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(chromium, page):
    chromium.get_log("performance")
    chromium.get(page.as_uri())
    return chromium


def texts(browser, selector: str) -> list[str]:
    """What the elements hold, blank space and all."""
    return browser.execute_script(
        "return Array.from(document.querySelectorAll(arguments[0]), e => e.textContent)", selector
    )


def press(browser, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def click(browser, selector: str, place: int = 0) -> None:
    browser.execute_script(
        "document.querySelectorAll(arguments[0])[arguments[1]].click()", selector, place
    )


def test_nothing_is_fetched_and_nothing_is_wrong(opened, page):
    press(opened, "\ue014", "\ue014", ".", "t", "1")  # Right arrows: through all questions.
    assert opened.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    # Requests of the browser's own pages are left out.
    urls = [each["request"]["url"] for each in sent if each["documentURL"] == page.as_uri()]
    assert page.as_uri() in urls
    assert all(url == page.as_uri() or url.startswith("data:") for url in urls)


def test_the_policy_refuses_requests_and_foreign_scripts(opened):
    """Here the page is made to misbehave."""
    opened.execute_script(
        "const i = new Image(); i.src = 'http://127.0.0.1:9/x.png'; document.body.append(i);"
    )
    opened.execute_script(
        "document.body.insertAdjacentHTML('beforeend', '<b onclick=\"document.title=1\" id=evil>')"
    )
    click(opened, "#evil")
    log = " ".join(entry["message"] for entry in opened.get_log("browser"))
    assert "violates the following Content Security Policy directive" in log
    assert "a <model>" in opened.title


def test_model_text_is_text(opened):
    assert texts(opened, ".card .text") == [HOSTILE, HOSTILE]
    assert texts(opened, "#asked .user") == ["first <u>question</u>?"]
    assert opened.title == "a <model> on & questions"
    assert not texts(opened, "#answers img, #answers script, #answers u")
    press(opened, "\ue014")
    assert texts(opened, ".card .text") == ["a😀👩‍🚀漢"] * 2
    assert texts(opened, ".card:nth-child(1) .piece") == ["a😀", "👩‍🚀", "漢"]
    assert texts(opened, ".card:nth-child(2) .piece") == ["a😀", "👩‍🚀漢"]
    press(opened, "\ue014")
    assert texts(opened, ".card .text") == ["RuntimeError: <b>out of luck", "a b c"]
    notes = texts(opened, ".card p")
    assert "failed; in no number" in notes and any("not recorded" in note for note in notes)


def test_question_turn_and_decoder_are_switched(opened):
    assert texts(opened, ".card h3") == ["greedy", "dynamic"]
    click(opened, "#turns button", 1)
    assert texts(opened, "#asked .user") == ["first <u>question</u>?", "second?"]
    assert texts(opened, ".card .text") == ["one two", "one three"]
    assert texts(opened, ".card .differs") == ["three"]
    assert texts(opened, ".card .unequal") == ["differs from greedy from token 2 on"]
    press(opened, "t")
    assert texts(opened, "#asked .user") == ["first <u>question</u>?"]
    press(opened, "t")
    assert texts(opened, "#asked .user") == ["first <u>question</u>?", "second?"]
    click(opened, "#decoders button", 0)
    assert texts(opened, ".card h3") == ["dynamic"]
    press(opened, "1", "2")
    assert texts(opened, ".card h3") == ["greedy"]
    press(opened, "2")
    opened.execute_script(
        "const s = document.getElementById('question'); s.value = 1;"
        "s.dispatchEvent(new Event('change'))"
    )
    assert texts(opened, "#asked .user") == ["third?"]
    assert texts(opened, ".card h3") == ["greedy", "dynamic"]
    assert texts(opened, "#turns button") == ["1"]
    click(opened, "#differing")
    assert [text.split()[0] for text in texts(opened, "#question option")] == ["81"]


def test_steps_and_their_trees(opened):
    press(opened, "\ue014")
    assert texts(opened, ".tree svg title") == ["tree of step 1: 51 nodes, 3 on the accepted path"]
    assert {"<i>$a" * 9, "漢", "␣c", "61", "37"} <= set(texts(opened, ".tree svg text"))
    assert texts(opened, ".tree rect.kept, .tree path.kept") == [""] * 5
    press(opened, ".")
    assert texts(opened, ".tree svg title") == ["tree of step 2: 3 nodes, 1 on the accepted path"]
    assert texts(opened, ".piece.now") == ["👩‍🚀漢"]
    assert texts(opened, ".card.used [role=status]") == [
        "step 2 of 2: 1 token committed, 4 nodes verified"
    ]
    click(opened, ".card:nth-child(1) .piece", 2)
    assert texts(opened, ".card.used [role=status]") == [
        "step 3 of 3: 1 token committed, 4 nodes verified"
    ]
    press(opened, ",")
    assert texts(opened, ".card.used .piece.now") == ["👩‍🚀"]


def test_a_button_that_was_pressed_keeps_the_focus(opened):
    """All buttons were made anew, and the next Tab began at the top of the page."""
    focused = "return document.activeElement.textContent"
    for group, name, pressed in (("turns", "2", "true"), ("decoders", "greedy", "false")):
        place = texts(opened, f"#{group} button").index(name)
        button = f"document.querySelectorAll('#{group} button')[{place}]"
        opened.execute_script(f"{button}.focus()")
        press(opened, "\ue007")  # Enter.
        assert opened.execute_script(focused) == name
        assert opened.execute_script(f"return {button}.ariaPressed") == pressed
    assert texts(opened, ".card .text") == ["one three"]
    press(opened, "\ue014")  # A question of one turn has no choice of turns.
    assert texts(opened, "#turns button") == ["1"] and not opened.get_log("browser")
    press(opened, "\ue012")
    assert texts(opened, "#turns button") == ["1", "2"]


def test_texts_of_one_number_are_two_questions_with_addresses(chromium, tmp_path):
    turns = [make_turn("greedy", text=name) for name in "ab"]
    for turn_of_run in turns:
        text = turn_of_run.text
        write_run(tmp_path / text, [turn_of_run], question_texts={"1": [f"{text}?"]})
    page = tmp_path / "report.html"
    entries([open_run(tmp_path / name) for name in "ab"], page)
    chromium.get(page.as_uri())
    assert texts(chromium, "#question option") == ["1 – a?", "1 (2) – b?"]
    note = "Other questions have the same number: {}."
    assert texts(chromium, "#asked *") == ["a?", note.format("1 (2)")]
    press(chromium, "\ue014")
    assert texts(chromium, "#asked *") == ["b?", note.format("1")]
    address = chromium.current_url
    assert address.endswith("#question-1%20(2)-1")
    chromium.get("about:blank")
    chromium.get(address)
    assert texts(chromium, "#asked .user") == ["b?"] and texts(chromium, ".card .text") == ["b"]


INSIDE = """
const outer = document.querySelector(arguments[0]), parts = outer.querySelectorAll(arguments[1]);
const frame = outer.getBoundingClientRect(), part = parts[parts.length - 1].getBoundingClientRect();
return part.top >= frame.top && part.bottom <= frame.bottom && part.right <= frame.right;
"""


@pytest.mark.parametrize("width", [390, 1400])
def test_no_part_is_wider_than_the_window(opened, width):
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    opened.refresh()
    press(opened, "\ue014")  # The question that has trees.
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    assert opened.execute_script(INSIDE, ".tree", "rect.kept") is True
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_figure_is_enlarged_by_a_key_and_its_keys_move_no_question(opened):
    """At 390 pixels, a click did nothing, and no key did."""
    opened.execute_script("document.querySelector('figure button').focus()")
    press(opened, "\ue007")  # Enter.
    assert opened.execute_script("return document.getElementById('zoom').open") is True
    assert len(texts(opened, "#zoom img")) == 1
    press(opened, "\ue014")
    assert texts(opened, "#asked .user") == ["first <u>question</u>?"]
    press(opened, "\ue00c")  # Escape.
    assert opened.execute_script("return document.getElementById('zoom').open") is False
    click(opened, "figure button")
    click(opened, "#unzoom")
    assert opened.execute_script("return document.getElementById('zoom').open") is False
    assert opened.get_log("browser") == []


def test_the_address_names_question_and_turn(opened, page):
    address = page.as_uri()
    opened.get("about:blank")
    opened.get(f"{address}#question-81-2")
    assert texts(opened, "#asked .user") == ["first <u>question</u>?", "second?"]
    opened.execute_script("location.hash = '#question-82'")
    opened.execute_async_script("setTimeout(arguments[0], 50)")
    assert texts(opened, "#asked .user") == ["third?"]
    press(opened, "\ue012")  # The left arrow.
    assert opened.current_url == f"{address}#question-81-1"
    opened.execute_script("location.hash = '#question-999'")
    opened.execute_async_script("setTimeout(arguments[0], 50)")
    assert texts(opened, "#asked .user") == ["first <u>question</u>?"]


TEXT_IDS = ["81_DE-1", "HumanEval/0", "Ü 1#a", "81_DE"]


def test_the_address_names_a_question_whose_id_is_a_text(chromium, tmp_path):
    """The address was written, and could not be followed."""
    turns = [turn(each, "greedy", number, text=each) for each in TEXT_IDS for number in (1, 2)]
    headline = Table("", pd.DataFrame({"decoder": ["greedy"]}))
    asked = {"greedy": {each: (f"{each}?", "and then?") for each in TEXT_IDS}}
    shown = Page("t", [headline], [], {}, {"greedy": None}, turns, asked, {})
    write_page(tmp_path / "report.html", shown)
    address = (tmp_path / "report.html").as_uri()
    chromium.get(address)
    written = []
    for _ in TEXT_IDS:
        click(chromium, "#turns button", 1)
        written.append(chromium.current_url)
        press(chromium, "\ue014")
    assert written[0] == f"{address}#question-81_DE-1-2"
    typed = [f"{address}#question-{each}-2" for each in TEXT_IDS]
    for question, url in zip(TEXT_IDS * 2, [*written, *typed], strict=True):
        chromium.get("about:blank")
        chromium.get(url)
        assert texts(chromium, "#asked .user") == [f"{question}?", "and then?"], url
    for question in TEXT_IDS[1:3]:
        chromium.get("about:blank")
        chromium.get(f"{address}#question-{question}")
        assert texts(chromium, "#asked .user") == [f"{question}?"]


def test_on_a_phone_the_ratio_is_on_the_screen(chromium, tmp_path):
    """It was beyond the right edge."""
    names = ["greedy", "conditional:nodes=16:heads=false"]
    run = write_run(tmp_path / "run", random_turns(names))
    write_page(tmp_path / "report.html", Report.of([open_run(run)]).page([]))
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    chromium.get((tmp_path / "report.html").as_uri())
    right = "return document.querySelector('#headline tr:nth-child(2) td').getBoundingClientRect()"
    assert chromium.execute_script(f"{right}.right") <= 400
    assert "faster" in texts(chromium, "#headline tr:nth-child(2) td")[0]
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


CONTRAST = """
const linear = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const rgba = text => {
  const n = text.match(/[\\d.]+/g).map(Number);
  return n.length < 4 ? [...n, 1] : n;
};
const over = ([r, g, b, a], under) => [r, g, b].map((c, at) => c * a + under[at] * (1 - a));
function behind(element) {
  if (!element) return [255, 255, 255];
  return over(rgba(getComputedStyle(element).backgroundColor), behind(element.parentElement));
}
let worst = [99, ""];
for (const element of document.querySelectorAll(arguments[0])) {
  const colours = [rgba(getComputedStyle(element).color), behind(element)];
  const pair = colours.map(light).sort((a, b) => b - a);
  const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
  if (ratio < worst[0]) worst = [ratio, element.outerHTML.slice(0, 80)];
}
return worst;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(opened, scheme):
    """WCAG's contrast of all text, the strongest colours of steps included, is at least 4.5."""
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    colour = opened.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 20, 25)"}[scheme]
    assert len(texts(opened, ".legend .piece")) == 5
    elements = "h1, h2, h3, p, th, td, a, dt, dd, button, select, summary, kbd, figcaption"
    ratio, where = opened.execute_script(CONTRAST, f"{elements}, .user, .piece")
    assert ratio >= 4.5, where
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
