"""The forms of laws by name, as plain values: their formulas, their axes, and which way they go.

Study files are checked against this table without NumPy; forms.py has the rest of each, under the same name.
"""

from __future__ import annotations

from dataclasses import dataclass

# How laws are fitted: another number wherever the same runs may give other figures.
LAW_RECIPE = 2


@dataclass(frozen=True)
class Name:
    """axes: names of its variables; a law of one axis is written in x.

    positive: values are losses, fitted in their logarithm; otherwise they may cross zero.
    rises: y grows with x (a metric), instead of falling (a loss).
    """

    formula: str
    axes: tuple[str, ...]
    positive: bool = True
    rises: bool = False

    def suits(self, is_loss: bool) -> bool:
        """Whether it may be the law of a loss, or else of a metric."""
        return not self.rises if is_loss else not self.positive


NAMES = {
    "saturating_power": Name("L(x) = E + (X0/x)^alpha", ("x",)),
    "power_constant": Name("L(x) = E + A/x^alpha", ("x",)),
    "pure_power": Name("L(x) = A/x^alpha", ("x",)),
    "log_linear": Name("y(x) = a + b ln x", ("x",), positive=False),
    "sigmoid": Name(
        "y(x) = top / (1 + exp(-k (ln x - middle))) - offset", ("x",), positive=False, rises=True
    ),
    "hoffmann": Name("L(N, D) = E + A/N^alpha + B/D^beta", ("N", "D")),
    "hoffmann_tied": Name("L(N, D) = E + A/N^alpha + B/D^alpha", ("N", "D")),
    "kaplan": Name("L(N, D) = ((N_c/N)^(alpha/beta) + D_c/D)^beta", ("N", "D")),
    "muennighoff": Name(
        "L(N, D, U) = E + A/N'^alpha + B/D'^alpha; x' = u + u R (1 - exp(-(x/u - 1)/R)), "
        "u = U for D, (A/B)^(1/alpha) U for N",
        ("N", "D", "U"),
    ),
    "ceiling": Name("y(N, D) = E - A/N^alpha - B/D^beta", ("N", "D"), positive=False, rises=True),
    "performance": Name(
        "y(L, d, D, ApEn) = b + w_L h(L, e_L) + w_d h(d, e_d) + h(D ApEn, e_D); "
        "h(x, e) = -1/(2 x^e) - e ln x",
        ("L", "d", "D", "ApEn"),
        positive=False,
        rises=True,
    ),
}
