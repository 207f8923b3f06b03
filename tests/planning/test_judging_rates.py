"""Rates of judging: heads share a teacher, and are given to threads."""

from alens.planning.judging_rates import JudgingRates

RATES = JudgingRates(teacher_s=1.0, loss_s=2.0, figures_s=10.0, threads=2)


def test_heads_share_the_teacher() -> None:
    assert RATES.losses_s(6, 100) == 100 * (1.0 + 6 / 2 * 2.0)


def test_the_mean_output_is_judged_too() -> None:
    assert RATES.all_figures_s(5, 100) == 100 * (1.0 + 6 / 2 * 10.0)
