# pyright: strict, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
"""Pairs of samples that are alike in several scores, by their propensity."""

import numpy as np
from sklearn.linear_model import LogisticRegression

CALIPER = 0.2
"""Largest distance within a pair, in standard deviations of the log-odds of propensity."""


def match_pairs(treated: np.ndarray, control: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of a treated sample and a control whose propensities are nearest, each sample in one pair at most.

    The propensity of a sample is its probability of being treated given its scores, by a logistic regression. Samples
    of equal propensity have the same distribution of all scores in both groups (Rosenbaum & Rubin 1983). The treated
    samples choose in their order, and one that finds nobody within the caliper is left out.

    Args:
        treated: Scores in which the two groups are to be alike, (n, q), n >= 1.
        control: The same of the other group, (m, q), m >= 1.

    Returns:
        Pairs of rows, in the order of the treated ones.

    Source: Rosenbaum & Rubin 1983; Austin 2011 (Pharm. Stat. 10, 150-161) for the caliper.

    Examples:
        >>> pairs = match_pairs(np.array([[0.0], [5.0]]), np.array([[0.1], [-4.0], [5.1]]))
        >>> [(int(i), int(j)) for i, j in pairs]
        [(0, 0), (1, 2)]
    """
    scores = np.concatenate([treated, control])
    sd = scores.std(axis=0)
    scores = (scores - scores.mean(axis=0)) / np.where(sd > 0, sd, 1)
    is_treated = np.arange(len(scores)) < len(treated)
    odds = LogisticRegression().fit(scores, is_treated).decision_function(scores)
    free, pairs = odds[~is_treated].copy(), list[tuple[int, int]]()
    for row, value in enumerate(odds[is_treated]):
        nearest = int(np.abs(free - value).argmin())
        if abs(free[nearest] - value) <= CALIPER * odds.std():
            pairs.append((row, nearest))
            free[nearest] = np.inf
    return pairs
