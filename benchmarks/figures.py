"""Figures of all rounds, and what is said about them: medians, percentiles, ratios."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


def percentile(samples: Sequence[float], percent: float) -> float:
    """The value that so many percent of the samples do not exceed."""
    ordered = sorted(samples)
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)]


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float | None:
    """The median of the ratios within each round; that of the medians if a round is missing; None without figures."""
    if not numerators or not denominators:
        return None
    if len(numerators) == len(denominators):
        pairs = [(above, below) for above, below in zip(numerators, denominators, strict=True) if below]
        return statistics.median(above / below for above, below in pairs) if pairs else None
    below = statistics.median(denominators)
    return statistics.median(numerators) / below if below else None


@dataclass
class Results:
    """What was measured."""

    #: contender -> name of the figure -> its value in each round.
    rounds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    #: contender -> latencies of all rounds in ms.
    latencies: dict[str, list[float]] = field(default_factory=dict)
    #: What could not be measured, and why.
    failures: list[str] = field(default_factory=list)
    #: How long each step took (s).
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, contender: str, figures: Mapping[str, float]) -> None:
        """The figures of one round."""
        seen = self.rounds.setdefault(contender, {})
        for name, value in figures.items():
            seen.setdefault(name, []).append(value)

    def add_latencies(self, contender: str, samples: Sequence[float]) -> None:
        """The samples of one round."""
        self.latencies.setdefault(contender, []).extend(samples)

    def values(self, contender: str, name: str) -> list[float]:
        """A figure in each round; for latency, of all rounds together."""
        pooled = self._pooled(contender)
        return [pooled[name]] if name in pooled else self.rounds.get(contender, {}).get(name, [])

    def median(self, contender: str, name: str) -> float | None:
        """The median of the rounds, or None if it was not measured."""
        values = self.values(contender, name)
        return statistics.median(values) if values else None

    def ratio(self, contender: str, other: str, name: str, other_name: str = '') -> float | None:
        """A figure of one contender to that of another."""
        return paired_ratio(self.values(contender, name), self.values(other, other_name or name))

    def contenders(self) -> list[str]:
        """Those with figures, in the order in which they were measured first."""
        return list(dict.fromkeys((*self.rounds, *self.latencies)))

    def medians(self) -> dict[str, dict[str, float]]:
        """All figures."""
        return {
            contender: {
                **{name: statistics.median(values) for name, values in self.rounds.get(contender, {}).items()},
                **self._pooled(contender),
            }
            for contender in self.contenders()
        }

    def _pooled(self, contender: str) -> dict[str, float]:
        samples = self.latencies.get(contender)
        if not samples:
            return {}
        return {'latency.p50_ms': statistics.median(samples), 'latency.p99_ms': percentile(samples, 99)}
