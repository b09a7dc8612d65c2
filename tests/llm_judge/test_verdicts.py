"""What a judge's reply means, in the forms that judges write."""

import json

import pytest

from llm_judge.judgments import read_judgments
from llm_judge.verdicts import grade, winner
from tests.helpers.paths import SHARED

JUDGMENTS = SHARED / "mt_bench" / "medusa" / "model_judgment" / "gpt-4_single.jsonl"

# Longer than a reply that is nothing but the verdict may be.
LONG = "The answer is complete, and its three examples are all well chosen.\n\n"

GRADES = [
    ("Rating: [[7]]", 7),
    ("[[8.5]]", 8.5),
    ("[[10]]", 10),
    ("[[8.0]]", 8.0),
    # Other forms.
    ("Rating: [7]", 7),
    ("[7]", 7),
    ("Good. [[Rating: 8]]", 8),
    ("[[rating=8]]", 8),
    ("[[Final score: 8/10]]", 8),
    ("Rating: [[8/10]]", 8),
    ("Rating: [[8 out of 10]]", 8),
    ("Rating: [[8]]/10", 8),
    ("[[8.0/10.0]]", 8.0),
    ("Rating: [[ 8 ]]", 8),
    ("Rating: [[**8**]]", 8),
    ("**Rating:** [[8]]", 8),
    ("**Rating: 8/10**", 8),
    ("Rating: **8**", 8),
    ("Rating: 8.5.", 8.5),
    (r"Rating: \[\[8\]\]", 8),
    (r"Rating: [[\boxed{8}]]", 8),
    ("[[Rating]]: 8", 8),
    ("[RESULT] 8", 8),
    ("<score>8</score>", 8),
    ("My rating is 8.", 8),
    ("Overall rating (1-10): 8", 8),
    ("Rating for the second answer: 8", 8),
    ("Rating: 8 out of 10.", 8),
    ("Rating: [ [8] ]", 8),
    ("Rating: [[8]", 8),
    ("Gut. Bewertung: [[8,5]]", 8.5),
    ("良い。評価：［［８］］", 8),
    ("評価：【【8】】", 8),
    ("评分：8分", 8),
    ("総合評価：8", 8),
    ('{"rating": 8, "explanation": "good"}', 8),
    ('{"explanation": "see line [3], or [[4]]", "rating": "8/10"}', 8),
    ('```json\n{"explanation": "good", "Score": [[8]]}\n```', 8),
    ('Here it is:\n{"explanation": "see [3]", "rating": 8}', 8),
    ("8/10", 8),
    ("**8**", 8),
    ("Rating: **8**/10", 8),
    ("Rating [1-10]: 8", 8),
    ("Rating on a scale of 1 to 10: 8", 8),
    ("### Rating\n8/10", 8),
    ("## Final Score\n\n**7.5**", 7.5),
    ("I would rate this response an 8 out of 10.", 8),
    ("Note : 8/10", 8),
    # Thoughts.
    ("<think>At first [[3]]. Rating: [[4]]</think>\nRating: [[9]]", 9),
    ("It deserves a rating of [[3]]. Or not?</think>\n[[9]]", 9),
    ("Good. <think>Rating: [[3]]</think> [[9]]", 9),
    ("<|channel|>analysis<|message|>[[3]]<|end|><|channel|>final<|message|>[[9]]", 9),
    ("<think>Rating: [[3]]", -1),
    # Several candidates.
    ("[[3]], no, rather [[9]]", 9),
    ("A first impression would be [[4]]. On reading it again it is right. Rating: [[9]]", 9),
    ("Rating: [[9]]. Nothing here would have earned a [[3]].", 9),
    ('I end with a line such as "Rating: [[5]]". Excellent. Rating: [[10]]', 10),
    ('Rating: [[10]]\nThis is the form "Rating: [[5]]" that I was asked for.', 10),
    ("I was asked to write, for example: Rating: [[5]].\nIt is excellent. My grade: [[10]]", 10),
    ("Style: [[6]]\nAccuracy: [[9]]\nOverall: [[8]]", 8),
    ("Score for style: 6\n\n[[8]]", 8),
    ("[2] is cited, but: [[9]]", 9),
    ("It cites [1] and [2]. Rating: 9", 9),
    ("The matrix [[1, 2]] is right. Rating: [[9]]", 9),
    ("`m = [[5]]` is wrong.\n\nRating: [[2]]", 2),
    ("Rating: [[9]]\n```python\nm = [[5]]\n```", 9),
    ("Rating: [[1]]\n\nThe answer ends in:\n> Rating: [[10]]", 1),
    ("```\nIt is right.\nRating: [[9]]\n```", 9),
    ("First [[3]].\n```\nRating: [[9]]\n```", 9),
    ("Accuracy: [[3]]\nRating: [[7]]\nCreativity: [[2]]", 7),
    ("I rated [[4]] first, then [[6]], and my final grade is [[7]].", 7),
    ("[[8]] out of [[10]]", 8),
    ("On a scale of [[1]] to [[10]] I give it [[8]].", 8),
    # An ordinary last line, or the score of one aspect.
    ("Rating: [[7]]\n\nSub-scores:\n- Accuracy score: 9\n- Style score: 3", 7),
    ("Rating: [[8]]\n\nConfidence score: 9", 8),
    ("Rating: [[7]]\nStyle score: [[3]]", 7),
    ("Rating: 7\nScore for style: 3", 7),
    ("My final score is 7, and the style score is 3.", 7),
    ("## Overall score\n7\n\n## Style score\n3", 7),
    ("## Overall\n[[7]]\n\n## Style\n[[3]]", 7),
    ("Rating: [[1]]\n\nThe correct result is 8.", 1),
    ("Rating: [[9]]\n\nSee [[3]].", 9),
    ('Rating: [[3]] is too low.\n\nFinal rating: "[[9]]"', 9),
    ("The answer is wrong: the correct result is 8.", -1),
    ("The correct result is 8.", -1),
    ("It has a total of 8.", -1),
    ("Accuracy score: 9\nStyle score: 3", -1),
    ("Helpfulness score: 8", 8),
    ("**Weighted score:** 7.5", 7.5),
    ("Style score: 3\nAggregate score: 8/10", 8),
    ("Rating: [[6]]\n\nWeaker points: it is long.", 6),
    ("Rating: 7\n\n**Worse** than I had hoped.", 7),
    ("The assistant's rating: 8", 8),
    ("I'd give this a solid score of 8.", 8),
    ("The answer is good **Rating:** 8", 8),
    # What another answer would have got.
    ("Rating: [[7]]\nTo earn a rating of [[9]], the answer would need two worked examples.", 7),
    ("Rating: [[7]]. It could have reached [[9]] with examples.", 7),
    ("Rating: [[7]]\nA [[9]] would require examples.", 7),
    ("A [[5]] is too low.\n\n[[7]]\nIf it had examples, it would be better.", 7),
    ("A [[5]] is too low: it manages to earn a rating of [[8]].", 8),
    ("I would give it [[7]].", 7),
    ("Rating: [[7]]\n\nWith sources I would have given it [[9]].", 7),
    ("Rating: [[7]]. With sources, I would rate it [[9]].", 7),
    ("Rating: 7\n\nWith sources, I would rate it 9/10.", 7),
    ("Rating: [[7]]. If it cited sources, I would rate it [[9]].", 7),
    ("Rating: [[7]]. Had it cited sources, I'd give it [[9]].", 7),
    ("Rating: [[7]]. Otherwise I would give it [[9]].", 7),
    ("Rating: [[7]]. I would give it [[9]], had it cited sources.", 7),
    ("Rating: [[7]]. It might have been a [[9]].", 7),
    ("I would have given it [[9]] with sources.", 9),
    ("Is it a [[5]]? I would have liked sources, but it is a [[7]].", 7),
    ("Is it a [[5]]? With sources it would be perfect; so far it is a [[7]].", 7),
    ("With few errors, I would rate it [[8]].", 8),
    ("A [[5]] is too low. I would have to give it a [[7]].", 7),
    ("Is it a [[5]]? With that in mind, I would rate it [[8]].", 8),
    ("Is it a [[5]]? If I had to give a grade, I would give [[8]].", 8),
    # An example ends with its sentence, its clause or its brackets.
    ("It lacks detail, such as dates. Rating: [[6]]", 6),
    ("It lacks detail, such as dates; rating: [[6]]", 6),
    ("It lacks detail, such as dates, so it gets [[6]]", 6),
    ("It lacks detail (e.g. no dates): [[6]]", 6),
    ("(e.g., in Rust). Rating: [[7]]", 7),
    ("It could name a language, e.g. Rust! Rating: [[7]]", 7),
    ("例如缺少数据。评分：[[7]]", 7),
    ("缺少数据，例如日期！评分：[[7]]", 7),
    ("It ends in a line, e.g., [[5]].", -1),
    ("It ends in a grade such as 3.5 or [[5]].", -1),
    ("It ends in a grade, such as (5) or ([[5]]).", -1),
    ('It ends in a line, for example. "Rating: [[5]]".', -1),
    ("例如：「评分：[[5]]」", -1),
    # JSON with text around it, or nested.
    ('Evaluation:\n{"rating": 8, "style_score": 3}', 8),
    ("Evaluation:\n{'rating': 8, 'style_score': 3}", 8),
    ("{'overall': {'score': 8}, 'why': \"it's right\", 'clarity': {'score': 3}}", 8),
    ('{"overall": {"score": 8}, "clarity": {"score": 3}}', 8),
    ('{"overall": 8, "style_score": 3}', 8),
    ('{"scores": {"clarity": 3, "overall": 8}}', 8),
    ('```json\n{\n "overall": {"score": 8},\n "style": {\n  "score": 3\n }\n}\n```\nDone.', 8),
    ('{"clarity": {"score": 9}, "style": {\n"score": 3\n}}', -1),
    ('{"explanation": "Good.\n\nRating: [[8]]"}', 8),
    ('It prints {"score": 3}, which is right.\n\nRating: [[9]]', 9),
    ('{"overall": ' * 5000 + "8" + "}" * 5000, 8),
    # The scale after the brackets.
    ("Rating: [[4]]/5", -1),
    (f"{LONG}Rating: [[4]]/5", -1),
    (f"{LONG}Rating: **[[4]]** / 5", -1),
    (f"{LONG}I give it [[4]] out of 5.", -1),
    (f"{LONG}I give it [[4]] out of [[5]].", -1),
    (f"{LONG}Rating: [[8]]/10", 8),
    (f"{LONG}I give it [[8]] out of [[10]].", 8),
    # Brackets and quotation marks before the scale.
    (f"{LONG}Rating: [8]/10", 8),
    (f"{LONG}Rating: `8`/10", 8),
    (f"{LONG}Rating: $\\boxed{{8}}$/10", 8),
    (f"{LONG}Rating: (8)/10", 8),
    (f"{LONG}Rating: [4]/5", -1),
    # No grade, or none that is certain.
    ("[[11]]", -1),
    ("[[0]]", -1),
    ("Rating: [[85]]", -1),
    ("Rating: [[85/100]]", -1),
    ("Rating: [[4/5]]", -1),
    ("Rating: 85/100", -1),
    ("Between seven and eight. Rating: [[7-8]]", -1),
    ("My rating is between [[7]] and [[8]].", -1),
    ("Rating: [[7]] - [[8]]", -1),
    ("```python\nm = [[5]]\n```\nThis is right.", -1),
    ("Note: 3 facts are wrong.", -1),
    ("I would rate 5 of its facts as wrong.", -1),
    ("Rating: 7-8", -1),
    ("[[seven]]", -1),
    ("It cites [1] and [2].", -1),
    ("The score is 3 points too low.", -1),
    ('I have to end with a grade, for example: "Rating: [[5]]".', -1),
    ('{"explanation": "good"}', -1),
    ("I cannot grade this.", -1),
    ("", -1),
    ("[[" + "9" * 5000 + "]]", -1),
    ("[[9." + "9" * 5000 + "]]", -1),
    ("[" * 100_000 + "]" * 100_000, -1),
]


@pytest.mark.parametrize(("reply", "means"), GRADES, ids=[reply[:40] for reply, _ in GRADES])
def test_a_grade(reply, means):
    found = grade(reply)
    assert found == means and type(found) is type(means)


PREFERENCES = [
    ("A is better: [[A]]", "one"),
    ("[[B]]", "two"),
    ("[[C]]", "tie"),
    ("neither", "error"),
    ("<think>[[A]] seems longer at first.</think> My final verdict is: [[B]]", "two"),
    ("I must answer [[A]], [[B]] or [[C]]. Assistant B is better: [[B]]", "two"),
    ("I must answer [[A]], [[B]] or [[C]].\n\n[[A]]", "one"),
    ('At first I thought [[A]]. My final verdict is: "[[B]]"', "two"),
    ("[[Assistant B]]", "two"),
    ("[[Assistant A is better]]", "one"),
    ("[[Verdict: B]]", "two"),
    ("[[Tie]]", "tie"),
    ("[[ **B** ]]", "two"),
    ("My final verdict is: [[B>>A]]", "two"),
    ("My final verdict is: [[A=B]]", "tie"),
    ("【【Ｂ】】", "two"),
    ("**Final verdict:** B", "two"),
    ("Winner: Assistant A.", "one"),
    ("Verdict: a tie.", "tie"),
    ('{"explanation": "[[A]] is shorter", "winner": "B"}', "two"),
    ("The winner is a matter of taste.", "error"),
    ("Answer A cites [B].", "error"),
    ("[[A]] is better than [[B]].", "one"),
    ("I prefer [[B]] over [[A]].", "two"),
    ("[[B]], not [[A]]", "two"),
    ("[[B]] > [[A]]", "two"),
    ("I say: **[[B]]** >> **[[A]]**", "two"),
    ("I say: Assistant B > [[A]]", "error"),
    # ">" of a tag, an arrow or a quoted line.
    ("<explanation>Both are fine.</explanation>\n\n[[A]]", "one"),
    ("<explanation>At first [[B]] seemed fine.</explanation>\n[[A]]", "one"),
    ("<p>Both are fine.</p></html>\n[[B]]", "two"),
    ("<td>A</td><td>[[B]]</td>", "two"),
    ("The better one is <b>[[A]]</b>", "one"),
    ("It is worth a <B>[[A]]</B>", "one"),
    ("Final verdict -> [[A]]", "one"),
    ("=> [[A]]", "one"),
    ("> [[A]]", "one"),
    ("B gives more, such as the cost. My verdict: [[B]]", "two"),
    ("My verdict: [[B]]. If A had sources, I would prefer [[A]].", "two"),
    ("Is it [[B]]? It is [[A]], though I would have liked sources.", "one"),
    ("Is it [[B]]? No: [[A]] had the better style.", "one"),
    ("Is it [[B]]? It is [[A]], if only by its style.", "one"),
    ("Is it [[B]]? If I had to choose, I would pick [[A]].", "one"),
    ("[[A]]: it explains more than [[B]]", "one"),
    ("Both [[A]] and [[B]] are right.", "error"),
    ("Assistant B is better.", "two"),
    ("<answer>B</answer>", "two"),
    ('{"winner": "assistant_b"}', "two"),
    ("My choice: a draw", "tie"),
    ("Assistant A's answer: C", "error"),
    ("[[A]]\n\nThe other one lacks detail, so [[B]] was never near.", "one"),
    ("[[A]]\n\nThe correct choice is B.", "one"),
    ("My choice is B.", "two"),
    ("[[A]] is better because [[B]] contains errors.", "one"),
    ("[[A]] is clearly better. [[B]] contains errors.", "one"),
    ("[[A]] wins because [[B]] contains errors.", "one"),
    ("[[A]], because [[B]] contains errors.", "one"),
    ("[[B]] is better written, but [[A]] is right.", "one"),
    ("[[A]] is worse than [[B]].", "two"),
    ("[[A]] is less helpful than [[B]].", "two"),
    ("[[A]] is less verbose and better than [[B]].", "one"),
    ("[[A]] is not as good as [[B]].", "two"),
    ("[[A]] is outperformed by [[B]].", "two"),
    ("[[A]] is not better than [[B]].", "error"),
    ("[[A]] is superior to [[B]].", "one"),
    ("[[A]] is preferable to [[B]].", "one"),
    ("[[A]] surpasses [[B]].", "one"),
    ("[[A]] is inferior to [[B]].", "two"),
    ("The options are [[A]], [[B]], or [[C]]. I cannot decide.", "error"),
    ('It is close:\n{"overall": {"winner": "B"}, "style": {"winner": "A"}}', "two"),
]


@pytest.mark.parametrize(
    ("reply", "means"), PREFERENCES, ids=[text[:40] for text, _ in PREFERENCES]
)
def test_a_preference(reply, means):
    assert winner(reply, "one", "two") == means


LAST_LINES = [
    ("**8/10**", 8),
    ("[8]", 8),
    ("$\\boxed{8}$/10", 8),
    ("7-8", -1),
    ("Assistant A is better.", "one"),
    ("Tie", "tie"),
    ("**B**", "two"),
    ("It is well written.", "error"),
]


@pytest.mark.parametrize(("line", "means"), LAST_LINES)
def test_a_last_line_is_read_as_the_same_reply(line, means):
    replies = line, LONG + line
    if isinstance(means, str):
        assert [winner(reply, "one", "two") for reply in replies] == [means, means]
    else:
        assert [grade(reply) for reply in replies] == [means, means]


@pytest.mark.skipif(not JUDGMENTS.is_file(), reason=f"no published judgments at {JUDGMENTS}")
def test_the_score_of_every_published_judgment_is_read_from_its_text():
    rows = read_judgments(JUDGMENTS)
    assert len(rows) == 480
    stored = [json.loads(line)["score"] for line in JUDGMENTS.open()]
    assert [grade(row["judgment"]) for row in rows] == stored
