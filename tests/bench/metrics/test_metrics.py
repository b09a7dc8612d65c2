import doctest
import math

import numpy as np
import pandas as pd
import pytest

from bench import metrics
from bench.metrics import intervals
from bench.store.records import Turn
from tests.helpers.runs import make_turn, random_turns


def turn(
    decoder: str, tokens: list[int], accepts: list[int], seconds: float = 1.0, **changes
) -> Turn:
    return make_turn(decoder, accepts, seconds, **{"token_ids": tokens, **changes})


TURNS = [
    turn("greedy", [7, 8, 9, 1], [1, 1, 1, 1], 2.0),
    turn("greedy", [5, 1], [1, 1], 1.0, turn=2),
    turn("greedy", [3, 1], [1, 1], 1.0, question_id=2, category="coding"),
    turn("dynamic", [7, 8, 9, 1], [3, 1], 1.0),
    turn("dynamic", [5, 1], [2], 0.5, turn=2),
    turn("dynamic", [4, 1], [1, 1], 1.5, question_id=2, category="coding"),
    turn("dynamic", [], [], 0.0, question_id=3, finish_reason="error", error="boom"),
]
ASKED = {1: 2, 2: 1, 3: 1}  # turns of each question


def test_half_an_answer_is_not_compared():
    """An answer whose second turn failed is not equal to greedy's, whatever its first turn says."""
    frame = metrics.frame([turn for turn in TURNS if turn.key != (1, "dynamic", 0, 2)])
    assert metrics.equal_to_baseline(frame, "dynamic", ASKED) == (0, 1)


def test_an_answer_is_equal_when_every_turn_is():
    other = [turn for turn in TURNS if turn.key != (1, "dynamic", 0, 2)] + [
        turn("dynamic", [5, 6], [2], turn=2)
    ]
    assert metrics.equal_to_baseline(metrics.frame(other), "dynamic", ASKED) == (0, 2)


def test_tokens_that_are_not_known_are_not_compared():
    ours = {"question_id": 1, "choice": 0, "turn": 1, "tokens": 2, "steps": 2, "decoder": "dynamic"}
    theirs = ours | {"decoder": "greedy"}
    for turns in ([ours, theirs], [ours, theirs | {"token_ids": np.array([7, 8])}]):
        assert metrics.equal_to_baseline(metrics.table(turns), "dynamic", {1: 1}) == (0, 0)


def test_every_number_by_hand():
    frame = metrics.frame(TURNS)
    dynamic = frame[frame.decoder == "dynamic"]
    assert metrics.tokens_per_inference(dynamic) == 8 / 5  # pooled: not the mean of 2, 2 and 1
    assert metrics.tokens_per_inference(frame[frame.decoder == "greedy"]) == 1.0
    assert metrics.tokens_per_second(dynamic) == 8 / 3.0
    assert metrics.tokens_per_second_with_prefill(dynamic) == 8 / 3.75
    assert metrics.tpi_ratio(frame, "dynamic") == 1.6
    assert metrics.wall_clock_ratio(frame, "dynamic") == (8 / 3.0) / (8 / 4.0)
    assert metrics.equal_to_baseline(frame, "dynamic", ASKED) == (1, 2)
    assert metrics.accept_length_histogram(dynamic).to_dict() == {1: 3 / 5, 2: 1 / 5, 3: 1 / 5}


def test_ratios_by_question_compare_the_medians_of_its_choices():
    frame = metrics.frame(
        [
            *(turn("greedy", [1, 2], [1, 1], seconds, choice=at) for at, seconds in enumerate((2.0, 2.0, 20.0))),
            *(turn("dynamic", [1, 2], [2], seconds, choice=at) for at, seconds in enumerate((1.0, 9.0, 1.0))),
            turn("greedy", [3, 1], [1, 1], 1.0, question_id=2), turn("dynamic", [3, 1], [1, 1], 4.0, question_id=2),
            turn("greedy", [3, 1], [1, 1], 1.0, question_id=3),
        ]
    )  # fmt: skip
    assert metrics.wall_clock_ratio_by_question(frame, "dynamic").to_dict() == {1: 2.0, 2: 0.25}


def test_what_repeats_itself_is_one():
    seconds = {
        (1, 0): 2.0,
        (1, 1): 4.0,
        (1, 2): 2.0,
        (1, 3): 1.0,
        (2, 0): 3.0,
        (2, 1): 3.0,
        (3, 0): 5.0,
    }
    turns = [
        turn("greedy", [1, 2], [1, 1], each, question_id=at, choice=choice)
        for (at, choice), each in seconds.items()
    ]
    frame = metrics.frame([*turns, turn("dynamic", [1, 2], [2], 1.0, choice=1)])
    # Question 1: the median of 0.5 and 2 tokens a second over that of 1 and 1; the third was answered once.
    assert metrics.repeatability_by_question(frame, "greedy").to_dict() == {1: 1.25, 2: 1.0}
    assert metrics.repeatability_by_question(frame, "dynamic").empty


def test_the_histograms_mean_is_tokens_per_inference():
    frame = metrics.frame(TURNS)
    histogram = metrics.accept_length_histogram(frame[frame.decoder == "dynamic"])
    assert sum(length * share for length, share in histogram.items()) == pytest.approx(1.6)


def test_a_failed_turn_is_in_no_number():
    """Predecessors gave it the step count and the time of the turn before."""
    assert len(metrics.frame(TURNS)) == len(TURNS) - 1
    assert metrics.decoder_row(metrics.frame(TURNS), "dynamic", ASKED)["turns"] == 3


def test_ratios_are_of_turns_that_both_finished():
    frame = metrics.frame([*TURNS, turn("greedy", [1] * 100, [1] * 100, 1.0, question_id=3)])
    assert metrics.wall_clock_ratio(frame, "dynamic") == (8 / 3.0) / (8 / 4.0)


def test_without_a_baseline_there_is_no_ratio():
    for baseline in ("greedy", None):  # it did not run; none was asked for
        row = metrics.decoder_row(metrics.frame(TURNS[3:]), "dynamic", ASKED, baseline)
        assert math.isnan(row["tpi_ratio"]) and math.isnan(row["wall_clock_ratio"])
        assert (
            row["tokens_per_inference"] == 1.6
            and row["equal_answers"] == row["compared_answers"] == 0
        )


def test_no_turns_at_all():
    frame = metrics.frame([])
    assert math.isnan(metrics.tokens_per_inference(frame)) and math.isnan(
        metrics.tokens_per_second(frame)
    )
    assert metrics.equal_to_baseline(frame, "dynamic", ASKED) == (0, 0)
    assert metrics.accept_length_histogram(frame).empty


def test_a_turn_without_a_time_is_in_no_time_and_in_every_count():
    timeless = [
        turn("greedy", [1, 2], [1, 1], 9.0, question_id=4),
        turn("dynamic", [1, 2], [2], float("nan"), question_id=4),
    ]
    frame = metrics.frame([*TURNS, *timeless])
    assert metrics.tokens_per_inference(frame[frame.decoder == "dynamic"]) == 10 / 6
    assert metrics.tokens_per_second(frame[frame.decoder == "dynamic"]) == 8 / 3.0
    assert metrics.wall_clock_ratio(frame, "dynamic") == (8 / 3.0) / (
        8 / 4.0
    )  # nor is greedy's of that question


def test_a_time_that_is_none_is_not_known():
    rows = [{"question_id": n, "choice": 0, "turn": 1, "tokens": 1, "steps": 1} for n in range(4)]
    times = [
        {"decode_s": 0.0, "wall_s": 2.0},
        {"decode_s": -1.0},
        {"prefill_s": math.inf, "wall_s": math.inf},
        {},
    ]
    table = metrics.table(row | time for row, time in zip(rows, times, strict=True))
    assert table.decode_s.fillna(-9).tolist() == [0.0, -9, -9, -9] and table.wall_s.fillna(
        -9
    ).tolist() == [2.0, -9, -9, -9]
    assert table.prefill_s.isna().all()


def test_numbers_by_category_and_by_turn():
    """Decoders in the order asked for, groups in the order of the turns; who has no turn in a group has no row there."""
    frame = metrics.frame([*TURNS, turn("greedy", [1], [1], question_id=9, category="stem")])
    pairs = {"dynamic": "greedy", "greedy": "greedy"}
    table = metrics.by(frame, "category", pairs)
    groups = [
        ("math", "dynamic"),
        ("math", "greedy"),
        ("coding", "dynamic"),
        ("coding", "greedy"),
        ("stem", "greedy"),
    ]
    assert list(zip(table.category, table.decoder, strict=True)) == groups
    assert table.turns.tolist() == [2, 2, 1, 1, 1]
    assert table.tokens_per_inference.tolist() == [2.0, 1.0, 1.0, 1.0, 1.0]
    assert table.tokens_per_second.tolist() == [4.0, 2.0, 2 / 1.5, 2.0, 1.0]
    assert table.tokens_per_second_with_prefill.tolist() == [
        6 / 2.0,
        6 / 3.5,
        2 / 1.75,
        2 / 1.25,
        1 / 1.25,
    ]
    assert table.tpi_ratio.tolist() == [2.0, 1.0, 1.0, 1.0, 1.0]
    assert table.wall_clock_ratio.tolist() == pytest.approx([2.0, 1.0, 1 / 1.5, 1.0, 1.0])
    assert metrics.by(frame, "turn", pairs).turn.tolist() == [1, 1, 2, 2]
    assert metrics.by(frame[:0], "turn", pairs).empty


def test_one_decoders_row():
    frame = metrics.frame(TURNS)
    row = metrics.decoder_row(frame, "dynamic", ASKED)
    assert (row["decoder"], row["baseline"], row["turns"], row["tokens"]) == (
        "dynamic",
        "greedy",
        3,
        8,
    )
    assert row["tokens_per_second"] == 8 / 3.0 and row["tokens_per_second_with_prefill"] == 8 / 3.75
    assert (row["tpi_ratio"], row["wall_clock_ratio"]) == (1.6, pytest.approx(4 / 3))
    assert row["wall_clock_ratio_with_prefill"] == pytest.approx((8 / 3.75) / (8 / 4.75))
    assert (
        row["tpi_ratio_low"] == 1.0 and row["tpi_ratio_high"] == 2.0
    )  # two questions: resamples hold one, or the other
    assert (row["equal_answers"], row["compared_answers"]) == (1, 2)
    assert row["accept_length_histogram"] == [0.6, 0.2, 0.2]
    thirds = metrics.decoder_row(
        metrics.frame([make_turn(accepts=[1, 1, 2])]), make_turn().decoder, ASKED
    )
    assert thirds["accept_length_histogram"] == [0.6667, 0.3333]
    table = metrics.acceptance_table(frame, ["greedy", "dynamic"])
    assert table[["decoder", "depth", "tried"]].values.tolist() == [
        ["dynamic", 1, 3],
        ["dynamic", 2, 1],
    ]
    assert metrics.acceptance_table(frame, []).empty


def test_spec_bench_counts_first_choices_of_whole_questions():
    """Its times include the prefill, of 0.25 s a turn here."""
    frame = metrics.frame([*TURNS, turn("dynamic", [1] * 50, [50], 1.0, choice=1)])
    row = metrics.spec_bench_row(frame, "dynamic", "greedy")
    assert row["decoder"] == "dynamic" and row["mean_accepted_tokens"] == 1.6
    assert row["mean_tokens_per_second"] == (6 / 2.0 + 2 / 1.75) / 2
    assert row["speed_up"] == pytest.approx(((6 / 2.0 + 2 / 1.75) / 2) / ((6 / 3.5 + 2 / 1.25) / 2))
    assert math.isnan(metrics.spec_bench_row(frame, "dynamic", None)["speed_up"])


def test_acceptance_by_depth_by_hand():
    """Seven steps in two turns. The last step of each is cut by the turn's end: it was tried no deeper than it kept."""
    frame = metrics.frame(
        [
            make_turn(accepts=[1, 3, 2, 2], nodes=[8] * 4),
            make_turn(accepts=[3, 1, 1], nodes=[8, 1, 8], question_id=2),
        ]
    )
    table = metrics.acceptance_by_depth(frame).set_index("depth")
    # Depth 1: steps 1 to 4 of the first turn and step 1 of the second; its step 2 had a lone root, its step 3 was cut.
    assert table.loc[1].tolist() == [5, 4, 4 / 5, 4 / 7]
    # Depth 2: the steps of 3, 2 and 3; the last 2 of the first turn may have been cut.
    assert table.loc[2].tolist() == [3, 2, 2 / 3, 2 / 7]
    assert list(table.index) == [1, 2]


def test_acceptance_where_nothing_is_known_or_drafted():
    greedy = metrics.frame(TURNS[:3])
    assert metrics.acceptance_by_depth(greedy).empty
    unknown = metrics.table([{"question_id": 1, "choice": 0, "turn": 1, "tokens": 4, "steps": 2}])
    assert (
        metrics.acceptance_by_depth(unknown).empty
        and metrics.accept_length_histogram(unknown).empty
    )
    assert metrics.accept_length_along(unknown).empty and math.isnan(
        metrics.mean_accepted_tokens(unknown)
    )
    assert (
        math.isnan(metrics.tokens_per_second_with_prefill(unknown))
        and metrics.tokens_per_inference(unknown) == 2.0
    )


def test_accept_length_along_the_answer():
    """Twenty answers that speed up after 100 tokens; the smoothed line is flat before and after, and a mean between."""
    frame = metrics.frame(
        [make_turn(accepts=[1] * 100 + [4] * 25, nodes=[8] * 125, question_id=n) for n in range(20)]
    )
    line = metrics.accept_length_along(frame, window=20)
    assert line[0] == line[89] == 1.0 and line[110] == line[180] == 4.0
    assert line[100] == pytest.approx(
        (10 * 1 + 3 * 4) / 13
    )  # tokens 90 to 110: ten steps of 1, three of 4
    assert len(line) == 197  # the last step begins at token 196


def test_the_line_along_the_answer_ends_where_too_few_steps_are_left():
    """Within 9 tokens of token 33 began six steps of 1 and four of 4; of token 34, five and four."""
    line = metrics.accept_length_along(
        metrics.frame([make_turn(accepts=[1] * 30 + [4] * 5, nodes=[8] * 35)]), window=18
    )
    assert len(line) == 34 and line[0] == 1.0 and line[33] == pytest.approx((6 * 1 + 4 * 4) / 10)


def test_turns_whose_accept_lengths_are_not_known_or_are_none_are_left_out():
    turns = [
        make_turn(accepts=[1, 3, 2, 2] * 5, nodes=[8] * 20),
        make_turn(accepts=[], nodes=[], question_id=2),
    ]
    unknown = metrics.table([{"question_id": 3, "choice": 0, "turn": 1, "tokens": 4, "steps": 2}])
    known, mixed = metrics.frame(turns[:1]), pd.concat([unknown, metrics.frame(turns)])
    for of in (
        metrics.accept_length_histogram,
        metrics.acceptance_by_depth,
        metrics.accept_length_along,
    ):
        assert of(mixed).equals(of(known)) and not of(known).empty
        assert of(metrics.frame(turns[1:])).empty
    # Where only the nodes are not known, there were enough.
    assert metrics.acceptance_by_depth(known.assign(nodes=None)).equals(
        metrics.acceptance_by_depth(known)
    )


def test_spec_benchs_formulas_by_hand():
    """Two questions of two turns. A row is a question: 8 tokens in 2 s and 9 in 1 s; greedy 8 in 4 s and 9 in 3 s."""
    answers = {
        "dynamic": [(5, 2, 1.5), (3, 1, 0.5), (4, 2, 0.5), (5, 5, 0.5)],
        "greedy": [(5, 5, 2), (3, 3, 2), (4, 4, 1), (5, 5, 2)],
    }
    frame = metrics.table(
        {
            "question_id": 1 + at // 2, "decoder": decoder, "choice": 0, "turn": 1 + at % 2, "tokens": tokens, "steps": steps,
            "wall_s": seconds, "accept_lengths": np.array([1] * (steps - 1) + [tokens - steps + 1]),
        }
        for decoder, rows in answers.items()
        for at, (tokens, steps, seconds) in enumerate(rows)
    )  # fmt: skip
    dynamic = frame[frame.decoder == "dynamic"]
    assert metrics.mean_tokens_per_second(dynamic) == (8 / 2 + 9 / 1) / 2
    assert metrics.spec_bench_speed_up(frame, "dynamic") == ((8 / 2 + 9 / 1) / 2) / (
        (8 / 4 + 9 / 3) / 2
    )
    assert metrics.mean_accepted_tokens(dynamic) == 17 / 10
    assert metrics.wall_clock_ratio_with_prefill(frame, "dynamic") == (17 / 3) / (
        17 / 7
    )  # ours is pooled


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """Paired over questions: a ratio that is 1.1 in truth, on questions whose speeds differ by far more than that."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(60):
        speed, tokens = random.uniform(50, 500, 60), random.integers(50, 500, 60)
        noise = random.normal(1, 0.05, (2, 60))
        low, high = intervals.pooled_interval(
            tokens, tokens / (1.1 * speed) * noise[0], tokens, tokens / speed * noise[1]
        )
        assert high - low < 0.1  # unpaired it would be some 0.4 wide
        held += low <= 1.1 <= high
    assert 52 <= held <= 60


def test_an_interval_holds_the_middle_of_what_resampling_gives():
    """A question unlike the others, so that other kinds of bootstrap intervals lie elsewhere."""
    tokens, steps = np.array([10, 10, 20, 20, 30, 30, 40, 40, 50, 300]), np.full(10, 10)
    drawn = np.random.default_rng(1).integers(0, 10, (20000, 10))
    by_hand = np.percentile(tokens[drawn].sum(1) / steps[drawn].sum(1), [2.5, 97.5])
    interval = intervals.pooled_interval(tokens, steps)
    assert interval == pytest.approx(by_hand, rel=0.05)
    assert interval == intervals.pooled_interval(tokens, steps)  # the seed is fixed


def test_questions_weigh_as_much_as_their_turns():
    turns = [turn("dynamic", [1] * 6, [1] * 6, question_id=1, turn=n) for n in (1, 2, 3)]
    others = [turn("dynamic", [1] * n, [n], question_id=n) for n in (2, 3, 4)]
    estimate = metrics.estimates(metrics.frame(turns + others), "dynamic")["tokens_per_inference"]
    tokens, steps = np.array([18, 2, 3, 4]), np.array([18, 1, 1, 1])
    assert (estimate.low, estimate.high) == intervals.pooled_interval(tokens, steps)


def test_questions_without_tokens_leave_no_interval_rather_than_an_infinite_one(recwarn):
    """Of two questions one has none, so a quarter of the draws have nothing to divide by."""
    some, none = np.array([5, 5]), np.array([0, 5])
    for sums in ((some, none), (some, some, none, some), (none, none)):
        assert np.isnan(intervals.pooled_interval(*sums)).all()
    assert not recwarn.list


def test_what_an_interval_says():
    assert doctest.testmod(intervals).failed == 0
    frame = metrics.frame(random_turns(["greedy", "static", "dynamic"]))
    assert metrics.estimates(frame, "dynamic")["tpi_ratio"].words == "higher"
    same = metrics.estimates(frame.replace({"decoder": {"static": "twin"}}), "twin", "twin")[
        "tpi_ratio"
    ]
    assert same.value == 1.0 and same.words == "unknown"
    assert math.isnan(metrics.estimates(frame[frame.question_id == 0], "dynamic")["tpi_ratio"].low)
    assert metrics.estimates(frame, "dynamic", None)["wall_clock_ratio"].words == "unknown"
