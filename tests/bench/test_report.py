"""Ratios of rounds, and goals."""

import pytest
import report


def test_ratio_of_rounds_is_that_of_medians_with_the_least_and_the_most_of_the_rounds():
    assert report.ratio_spread([[10, 12], [11, 13], [30, 31]], [[10, 10], [10, 12], [20, 20]]) == "1.14x (1.09-1.52)"


def test_a_round_may_be_one_figure():
    assert report.ratio_spread([97.0, 91.0, 110.0], [100.0, 100.0, 100.0]) == "0.97x (0.91-1.10)"


def test_one_round_has_no_spread():
    assert report.ratio_spread([[463.0]], [[1.0]]) == "463x"


@pytest.mark.parametrize("theirs, ours", [([], [[1]]), ([[1]], []), ([[]], [[1]]), ([[1]], [[0]])])
def test_nothing_to_compare(theirs, ours):
    assert report.ratio_spread(theirs, ours) == "-"


def test_a_round_without_samples_is_no_pair():
    assert report.ratio_spread([[], [4.0]], [[1.0], [2.0]]) == "2.67x"


def test_a_missed_goal_says_what_limits_it():
    with pytest.raises(ValueError):
        report.Goal("fast", "slow", False)
