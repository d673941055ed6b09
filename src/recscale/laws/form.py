"""What the shape of a scaling law is: its formula, constants, slopes, starts and source.

A form is written once as `curve(theta, log_x)`, which gives the value and its slopes for a batch of
constants at once. Theta holds the constants as the solver moves them (`Parameter.log`: as the
natural logarithm); everything that a user sees has the constants by name, as the formula has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recscale.laws.names import NAMES

Array = NDArray[np.float64]
Points = ArrayLike | Mapping[str, ArrayLike]


@dataclass(frozen=True)
class Parameter:
    """A constant of a law. low, high: its legal values; log: the solver moves its logarithm."""

    name: str
    meaning: str
    low: float = -inf
    high: float = inf
    log: bool = False


Curve = Callable[[Array, Array], tuple[Array, Array]]


@dataclass(frozen=True)
class Form:
    """A law's shape.

    name: of NAMES, where its formula and axes stand.
    curve: (theta [rows, constants], log_x [axes, points], or [axes, rows, points] where each row has
        its own) -> value [rows, points] in the unit of y, slopes [rows, constants, points].
    starts: (log_x [axes, points], y [points]) -> theta [starts, constants].
    solve: x at which the curve has a value, by named constants; only for one axis.
    turned, unturned: theta to the named constants in their own scale, with slopes [rows, constants,
        constants], and back. Only where the solver moves other combinations than the named ones.
    """

    name: str
    source: str
    parameters: tuple[Parameter, ...]
    curve: Curve = field(repr=False)
    starts: Callable[[Array, Array], Array] = field(repr=False)
    solve: Callable[[ArrayLike, Mapping[str, float]], Array] | None = field(default=None, repr=False)
    turned: Callable[[Array], tuple[Array, Array]] | None = field(default=None, repr=False)
    unturned: Callable[[Array], Array] | None = field(default=None, repr=False)

    @property
    def formula(self) -> str:
        """As a reader writes it."""
        return NAMES[self.name].formula

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of its variables."""
        return NAMES[self.name].axes

    @property
    def positive(self) -> bool:
        """Whether values are losses, fitted in their logarithm."""
        return NAMES[self.name].positive

    @property
    def rises(self) -> bool:
        """Whether y grows with x."""
        return NAMES[self.name].rises

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the constants, in the order of theta."""
        return tuple(parameter.name for parameter in self.parameters)

    def scaled(self, theta: Array) -> tuple[Array, Array]:
        """Named constants of each row (logarithms where `log`), and their slopes by theta."""
        if self.turned is not None:
            return self.turned(theta)
        return theta, np.tile(np.eye(theta.shape[1]), (len(theta), 1, 1))

    def named(self, theta: Array) -> Array:
        """The constants as the formula has them, one row a theta."""
        logs = [parameter.log for parameter in self.parameters]
        scaled = self.scaled(theta)[0]
        with np.errstate(over="ignore"):
            return np.asarray(np.where(logs, np.exp(np.where(logs, scaled, 0.0)), scaled))

    def theta(self, parameters: Mapping[str, float]) -> Array:
        """One row of theta from the constants by name."""
        values = np.array([[parameters[name] for name in self.names]], dtype=np.float64)
        logs = [parameter.log for parameter in self.parameters]
        with np.errstate(divide="ignore"):
            scaled = np.where(logs, np.log(np.where(logs, values, 1.0)), values)
        return scaled if self.unturned is None else self.unturned(scaled)

    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest legal value of each named constant, in its own scale."""
        ends = np.array([(p.low, p.high) for p in self.parameters])
        logs = np.array([p.log for p in self.parameters])[:, None]
        ends = np.where(logs, np.log(np.where(logs, ends, 1.0)), ends)
        return ends[:, 0], ends[:, 1]

    def theta_bounds(self) -> tuple[Array, Array]:
        """Lowest and highest theta; a combination of constants is bounded only against overflow."""
        low, high = self.bounds()
        if self.turned is not None:
            moved = self.turned(np.full((1, len(low)), 0.5))[0][0] != 0.5
            low[moved], high[moved] = -300.0, 300.0
        return low, high

    def logs(self, x: Points) -> Array:
        """ln x as `curve` takes it, [axes, points], from an array (one axis) or arrays by axis."""
        columns = [x[axis] for axis in self.axes] if isinstance(x, Mapping) else [x]
        if len(columns) != len(self.axes):
            raise ValueError(f"{self.name}: give x by axis: {', '.join(self.axes)}")
        return np.log(np.stack([np.ravel(np.asarray(part, dtype=np.float64)) for part in columns]))

    def predict(self, x: Points, parameters: Mapping[str, float]) -> Array:
        """y at x (an array, or arrays by axis), in the unit of y: nats for a loss."""
        first = next(iter(x.values())) if isinstance(x, Mapping) else x
        value = self.curve(self.theta(parameters), self.logs(x))[0][0]
        return np.asarray(value.reshape(np.shape(first)))

    def inverse(self, y: ArrayLike, parameters: Mapping[str, float]) -> Array:
        """x at which the curve has the value y, nan where it never does. For one axis only."""
        if self.solve is None:
            raise ValueError(f"{self.name}: has no inverse")
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            return np.asarray(self.solve(y, parameters))
