"""The metrics of each task in one table with all their names, and everything that users read of them, which follows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One row of a task's table: a metric, every name that it has, and where users read it.

    The stored value is the one in the metrics of a split, and so in TensorBoard and metrics.csv. The reported value is
    the one in result.json, and, times a factor, on the terminal.
    """

    key: str  # in the metrics of a split; metrics.csv puts the split before it
    tag: str  # in TensorBoard, after the split
    result: str  # in result.json, after "test " or "best test "
    label: str  # on the terminal, before the number
    decimals: int  # on the terminal
    unit: str = ""  # on the terminal, after the number
    factor: float = 1.0  # from the reported value to the number on the terminal
    complement: bool = False  # the reported value is 1 - the stored one: an error from an accuracy
    beside: str = ""  # the key of the metric after which it stands in brackets
    shown_with: str = ""  # the key of a metric: on the terminal it stands only where that one is above 0
    of_evaluations: bool = False  # the training images have none
    later: bool = False  # checkpoints of older versions have none
    of_best: bool = False  # result.json has it of the best epoch as well; the line of the last epoch shows it
    in_best_line: bool = False  # the line of the best epoch shows it
    brief: int = 0  # its rank among those that an epoch's line shows while there is room; 0: it never does
    short: str = ""  # the label there, where it is another one

    def report(self, stored: float) -> float:
        """The reported value."""
        return 1 - stored if self.complement else stored

    def text(self, reported: float) -> str:
        """Label, number and unit, for the terminal."""
        return f"{self.label} {self.factor * reported:.{self.decimals}f} {self.unit}".rstrip()

    def brief_text(self, stored: float) -> str:
        """The same for an epoch's line, where numbers stand below one another: as wide for 9.99 % as for 10 %."""
        number = self.factor * self.report(stored)
        form = f"{3 + self.decimals if self.unit else 0}.{self.decimals}f"
        return f"{self.short or self.label} {number:{form if abs(number) < 1e5 else '.4g'}} {self.unit}".rstrip()


class MetricReport(Protocol):
    """What users read of the metrics of a task, in the order of its table."""

    table: tuple[Metric, ...]

    def tags(self, metrics: dict[str, float]) -> dict[str, float]:
        """The metrics of a validation or test set by TensorBoard tag."""
        return {metric.tag: metrics[metric.key] for metric in self.table}

    def train_tags(self, metrics: dict[str, float]) -> dict[str, float]:
        """The metrics of the training images by TensorBoard tag; of the loss it has each step already."""
        kept = [metric for metric in self.table if metric.key in metrics and metric.key != "loss"]
        return {metric.tag: metrics[metric.key] for metric in kept}

    def describe(self, metrics: dict[str, float]) -> str:
        """The metrics of a split in one line for the terminal."""
        reported = {metric.key: metric.report(metrics[metric.key]) for metric in self.table if metric.key in metrics}
        return "  ".join(self._texts(reported, self._alone()))

    def result(self, last: dict[str, float], best: dict[str, float], best_epoch: dict[str, object]) -> dict:
        """What result.json says of the test set, from its metrics after the last and after the best epoch.

        best_epoch says which epoch is the best and which images chose it; it stands between the two.
        """
        of_last = {f"test {metric.result}": metric.report(last[metric.key]) for metric in self.table}
        of_best = {f"best test {metric.result}": metric.report(best[metric.key]) for metric in self._of_best()}
        return {**of_last, **best_epoch, **of_best}

    def describe_result(self, result: dict) -> tuple[str, str]:
        """For the terminal: what result() says of the last epoch, and of the best one."""
        last = {metric.key: result[f"test {metric.result}"] for metric in self.table}
        best = {metric.key: result[f"best test {metric.result}"] for metric in self._of_best()}
        in_best_line = [metric for metric in self._of_best() if metric.in_best_line]
        return (
            "test " + ", ".join(self._texts(last, self._of_best())),
            "test " + ", ".join(self._texts(best, in_best_line)),
        )

    @property
    def main_tags(self) -> tuple[str, ...]:
        """The tags of TensorBoard's HParams table, after the split: those that the best epoch has too first."""
        return tuple(metric.tag for metric in sorted(self._alone(), key=lambda metric: not metric.of_best))

    def _alone(self) -> list[Metric]:
        return [metric for metric in self.table if not metric.beside]

    def _of_best(self) -> list[Metric]:
        return [metric for metric in self.table if metric.of_best]

    def _texts(self, reported: dict[str, float], metrics: Iterable[Metric]) -> Iterator[str]:
        """A text for each of the metrics; in brackets those beside it, where `reported`, by key, has them."""
        shown = [each for each in self.table if not each.shown_with or reported.get(each.shown_with, 0) > 0]
        for metric in metrics:
            beside = [each for each in shown if each.beside == metric.key and each.key in reported]
            inside = ", ".join(each.text(reported[each.key]) for each in beside)
            yield metric.text(reported[metric.key]) + (f" ({inside})" if inside else "")


CLASSIFICATION = (
    Metric(key="loss", tag="loss", result="loss", label="loss", decimals=4, brief=2),
    Metric(
        key="accuracy", tag="accuracy", result="top-1 error", complement=True, short="error",
        label="top-1 error", decimals=2, unit="%", factor=100, of_best=True, in_best_line=True, brief=1,
    ),
    Metric(
        key="top-5", tag="top-5 accuracy", result="top-5 error", complement=True,
        label="top-5 error", decimals=2, unit="%", factor=100, of_best=True, brief=6, short="top-5",
    ),
    Metric(
        key="median loss", tag="median loss", result="median loss", label="median", decimals=4,
        beside="loss", shown_with="overflowing images", of_evaluations=True, later=True, brief=4,
    ),
    Metric(
        key="overflowing images", tag="overflowing images", result="overflowing images", brief=3, short="overflows",
        label="overflowing images", decimals=0, beside="loss", shown_with="overflowing images", later=True,
    ),
)  # fmt: skip

REGRESSION = (
    Metric(
        key="loss", tag="loss", result="loss", label="MSE", decimals=4, of_best=True, in_best_line=True,
        brief=1,
    ),
    Metric(
        key="degrees", tag="mean absolute error in degrees", result="mean absolute error (degrees)",
        label="mean absolute error", decimals=2, unit="degrees", of_best=True, in_best_line=True, brief=2,
        short="error",
    ),
    Metric(
        key="degrees of zero", tag="mean absolute error of always zero in degrees",
        result="mean absolute error of always zero (degrees)", label="always zero", decimals=2,
        beside="degrees",
    ),
    Metric(
        key="loss of zero", tag="loss of always zero", result="loss of always zero",
        label="always zero", decimals=4, beside="loss",
    ),
    Metric(
        key="loss of mean", tag="loss of the training mean", result="loss of the training mean",
        label="training mean", decimals=4, beside="loss",
    ),
)  # fmt: skip
