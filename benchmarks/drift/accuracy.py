"""How far estimates of accuracy without labels are off under shift, and how often their intervals hold.

    python -m benchmarks.drift.accuracy [--data DIR] [--cache DIR] [--json FILE]

Three networks (the one of `detection.py`, the same trained for 3 epochs, and one that learned 2,048 images by heart)
and the first two again as classifiers of animals and vehicles are asked about images of CIFAR-10: clean, under the
shifts of `features.py`, darker, and under every corruption of `lensai_integrations.transforms.corruptions` in five
severities; besides, clean images with other shares of classes. Baselines of 500 and 2,000 rows are drawn from one half
of the test images, windows of 50, 200 and 1,000 from the other, and made into profiles as in production. The accuracy
of a window is what its labels say of it. Answers are kept in the cache; making them takes a quarter of an hour.

The constants of `drift/accuracy.py` are fitted here: the least ones for which 97.5% of windows lie above an interval's
lower end and below its upper one. They are fitted to all, and to all but one family of shifts, which then tells how
they would do under a shift that nobody thought of.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, softmax
from tqdm import tqdm

from benchmarks import results
from benchmarks.drift.features import add_arguments
from lensai_integrations import Profile, Profiler
from lensai_integrations.drift import accuracy
from lensai_integrations.drift.labelled import NORMAL_95, wilson

Floats = NDArray[np.float64]
#: Logits `[n, K]` by name of the shift, and the classes `[n]`.
Answers = dict[str, NDArray[Any]]

BASELINES: Final = (500, 2000)
SIZES: Final = (50, 200, 1000)
#: Baselines of a size for each network, and windows with other shares of classes for each baseline and size.
DRAWS, CLASS_SHIFTS = 3, 12
DARKENED: Final = (0.7, 0.3, 0.2, 0.1)
SEVERITIES: Final = (1, 2, 3, 4, 5)
#: Which of CIFAR-10's classes, by alphabet, are animals.
ANIMALS: Final = np.array([0, 0, 1, 1, 1, 1, 1, 1, 0, 0])
_FILE = "accuracy.npz"
#: Constants that are tried.
_STEPS = np.arange(0, 2.01, 0.05)


# -- answers of networks under shift


def shifts() -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """What is done to images `[n, 32, 32, 3]`, by name; a name begins with that of its family."""
    from benchmarks.drift import features
    from lensai_integrations.transforms.corruptions import CORRUPTIONS, RandomCorruption

    yield from features.SHIFTS.items()
    yield from ((f"brightness x{factor}", features.brightness(factor, factor)) for factor in DARKENED)
    for name, kind in CORRUPTIONS.items():
        for severity in SEVERITIES:
            settings = {"seed": 7} if issubclass(kind, RandomCorruption) else {}
            yield f"{name} severity {severity}", features.each_by(kind(severity, **settings))


def answers(data: Path, cache: Path) -> dict[str, Answers]:
    """By network: `clean` of the half that baselines are drawn from, and every shift of the other half."""
    path = cache / _FILE
    if not path.exists():
        from benchmarks.drift import features

        cache.mkdir(parents=True, exist_ok=True)
        images, labels = features.images_of(data / "cifar10" / "train")
        test, truths = features.images_of(data / "cifar10" / "test")
        few = np.random.default_rng(0).permutation(len(images))[:2048]
        nets = {
            "14 epochs": features.trained(data, cache, 14),
            "3 epochs": features.train(images, labels, 3),
            "by heart": features.train(images[few], labels[few], 25, smoothing=0.0, augment=False),
        }
        order = np.random.default_rng(5).permutation(len(test))
        first, second = order[: len(order) // 2], order[len(order) // 2 :]
        found = {"labels": truths[first], "labels of windows": truths[second]}
        found |= {f"{name}/baseline": features.logits_of(net, test[first]) for name, net in nets.items()}
        for shift, change in tqdm(list(shifts()), "measuring", unit="shift"):
            changed = change(test[second])
            found |= {f"{name}/{shift}": features.logits_of(net, changed) for name, net in nets.items()}
        features.kept(found, path)
    return _by_network(path)


def _by_network(path: Path) -> dict[str, Answers]:
    with np.load(path, allow_pickle=False) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    truths = {name: kept.pop(name) for name in ("labels", "labels of windows")}
    found: dict[str, Answers] = {}
    for name, logits in kept.items():
        network, _, shift = name.partition("/")
        found.setdefault(network, dict(truths))[shift] = logits
    for network in ("14 epochs", "3 epochs"):
        of_two = {name: ANIMALS[rows] if name in truths else _of_two(rows) for name, rows in found[network].items()}
        found[f"{network}, 2 classes"] = of_two
    return found


def _of_two(logits: NDArray[Any]) -> NDArray[Any]:
    return np.stack([np.logaddexp.reduce(logits[:, kind == ANIMALS], axis=1) for kind in (0, 1)], axis=1)


# -- windows


@dataclass(frozen=True)
class Window:
    """What is known of one window, and what is true.

    Attributes:
        network, shift: Where it is from.
        baseline: Rows of the baseline.
        rows: Of the window.
        before: Accuracy on the baseline.
        truth: By the window's labels.
        estimate: Without them.
        less, more: What it may be off for the finite number of rows.
        moved: Share of the answers that moved.
        earlier: Ends of the interval that earlier releases gave.
        ends: Ends of today's.
        others: What other methods say.
    """

    network: str
    shift: str
    baseline: int
    rows: int
    before: float
    truth: float
    estimate: float
    less: float
    more: float
    moved: float
    earlier: tuple[float, float]
    ends: tuple[float, float]
    others: dict[str, float]

    @property
    def family(self) -> str:
        """The kind of shift."""
        return self.shift.partition(" ")[0]


def windows(found: dict[str, Answers]) -> list[Window]:
    """All windows of all baselines."""
    rng, made = np.random.default_rng(3), []
    for network, answered in tqdm(found.items(), "estimating", unit="network"):
        for rows in BASELINES * DRAWS:
            chosen = rng.choice(len(answered["labels"]), rows, replace=False)
            reference = profile_of(answered["baseline"][chosen], answered["labels"][chosen])
            asked = Asked(network, reference, answered["baseline"][chosen], answered["labels"][chosen])
            made += [asked.window(*each) for each in _drawn(answered, rng)]
    return made


def _drawn(answered: Answers, rng: np.random.Generator) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Name of the shift, logits and classes of every window."""
    truths = answered["labels of windows"]
    for size in SIZES:
        for shift in (name for name in answered if name not in ("labels", "labels of windows", "baseline")):
            chosen = rng.choice(len(truths), size, replace=False)
            yield shift, answered[shift][chosen], truths[chosen]
        for turn in range(CLASS_SHIFTS):
            weights = class_weights(truths, turn, rng)
            chosen = rng.choice(len(truths), size, p=weights)
            yield "classes", answered["clean"][chosen], truths[chosen]


def class_weights(truths: NDArray[Any], turn: int, rng: np.random.Generator) -> Floats:
    """How probable each row is where classes have other shares: one is missing, some twice as frequent, or any."""
    classes = int(truths.max()) + 1
    shares = [
        np.where(np.arange(classes) == rng.integers(classes), 0.0, 1.0),
        rng.permutation(np.where(np.arange(classes) % 2, 2.0, 1.0)),
        rng.dirichlet(np.ones(classes)),
    ][turn % 3]
    weights: Floats = (shares / np.bincount(truths))[truths]
    return weights / weights.sum()


def profile_of(logits: NDArray[Any], labels: NDArray[Any] | None = None) -> Profile:
    """As in production."""
    profiler = Profiler(seed=1)
    profiler.update(outputs=logits.astype(np.float32), **({} if labels is None else {"labels": labels}))
    return profiler.profile()


class Asked:
    """A baseline that is asked about windows."""

    def __init__(self, network: str, reference: Profile, logits: NDArray[Any], labels: NDArray[Any]) -> None:
        self._network, self._reference, self._rows = network, reference, len(labels)
        self._confidence = accuracy.confidences_of(reference)["outputs"]
        self._others = Others(logits, labels)

    def window(self, shift: str, logits: NDArray[Any], truths: NDArray[Any]) -> Window:
        """What is said of a window, and what is true."""
        profile, confidence = profile_of(logits), self._confidence
        told = accuracy.estimate_accuracy(confidence, profile, "outputs", self._reference)
        assert told is not None
        low, high = wilson(told.window, len(truths))
        spread = NORMAL_95 * (confidence.wrong / confidence.rows) ** 0.5
        low, high = (
            told.window - np.hypot(told.window - low, spread),
            told.window + np.hypot(high - told.window, spread),
        )
        less, more = accuracy.sampling_error(confidence, profile.groups["outputs"], told.window)
        truth = float(np.mean(logits.argmax(1) == truths))
        return Window(
            self._network, shift, self._rows, len(truths), told.baseline, truth, told.window, less, more, told.moved,
            (float(low), float(high)), (told.low, told.high), self._others(logits, told.moved),
        )  # fmt: skip


class Others:
    """Estimates by other methods that need no more than confidences: a function of the window's logits.

    Difference of confidences (D. Guillory et al., 2021), the same average confidence after a logistic recalibration of
    the largest probability, thresholded entropy (Garg et al., 2022), and the thresholded confidence of today, at most
    the baseline's accuracy times the share of answers that did not move.
    """

    def __init__(self, logits: NDArray[Any], labels: NDArray[Any]) -> None:
        right = logits.argmax(1) == labels
        self._before = float(right.mean())
        self._confidence, entropy = _confidence(logits).mean(), np.sort(_entropy(logits))
        self._threshold = entropy[max(int(right.sum()), 1) - 1]
        self._least = np.sort(1 - _confidence(logits))[max(int(right.sum()), 1) - 1]
        self._weights = _logistic(_odds(logits), right)

    def __call__(self, logits: NDArray[Any], moved: float) -> dict[str, float]:
        """The estimates, by name."""
        slope, offset = self._weights
        plain = float(np.mean(1 - _confidence(logits) <= self._least))
        return {
            "difference of confidences": float(self._before - self._confidence + _confidence(logits).mean()),
            "recalibrated confidence": float(expit(slope * _odds(logits) + offset).mean()),
            "thresholded entropy": float(np.mean(_entropy(logits) <= self._threshold)),
            "thresholded, at most what classes allow": min(plain, self._before * (1 - moved)),
        }


def _confidence(logits: NDArray[Any]) -> Floats:
    largest: Floats = softmax(logits.astype(np.float64), axis=1).max(axis=1)
    return largest


def _odds(logits: NDArray[Any]) -> Floats:
    confidence = np.clip(_confidence(logits), 1e-6, 1 - 1e-6)
    odds: Floats = np.log(confidence / (1 - confidence))
    return odds


def _entropy(logits: NDArray[Any]) -> Floats:
    p = softmax(logits.astype(np.float64), axis=1)
    entropy: Floats = -(p * np.log(np.maximum(p, 1e-30))).sum(axis=1)
    return entropy


def _logistic(x: Floats, right: NDArray[np.bool_]) -> Floats:
    """Slope and offset of a logistic regression."""
    signs = np.where(right, -1.0, 1.0)

    def loss(weights: Floats) -> float:
        away = weights - [1, 0]
        return float(np.logaddexp(0, signs * (weights[0] * x + weights[1])).mean() + 1e-4 * away @ away)

    weights: Floats = minimize(loss, [1.0, 0.0]).x
    return weights


# -- what comes of it


def holds(made: list[Window], which: str) -> float:
    """In what share of windows the truth lies in the interval `ends` or `earlier`."""
    return float(np.mean([getattr(each, which)[0] <= each.truth <= getattr(each, which)[1] for each in made]))


def width(made: list[Window], which: str) -> float:
    """The mean width of the intervals, as far as they are between 0 and 1."""
    return float(np.mean([min(getattr(w, which)[1], 1) - max(getattr(w, which)[0], 0) for w in made]))


def ends_by(each: Window, too_low: float, too_high: float) -> tuple[float, float]:
    """The interval by other constants."""
    low = each.estimate - np.hypot(each.less, too_high * each.moved)
    high = each.estimate + np.hypot(each.more, too_low * (each.estimate - each.before))
    return float(max(low, 0)), float(min(high, 1))


def fitted(made: list[Window]) -> tuple[float, float]:
    """The least constants by which 97.5% of windows lie above the lower end, and below the upper one."""
    low = (c for c in _STEPS if np.mean([w.truth <= ends_by(w, c, 0)[1] for w in made]) >= 0.975)
    high = (c for c in _STEPS if np.mean([w.truth >= ends_by(w, 0, c)[0] for w in made]) >= 0.975)
    return float(next(low, np.inf)), float(next(high, np.inf))


def left_out(made: list[Window]) -> dict[str, dict[str, float]]:
    """By family of shifts: the constants fitted to all others, and how often they hold there."""
    found = {}
    for family in dict.fromkeys(each.family for each in made):
        low, high = fitted([each for each in made if each.family != family])
        inside = [
            ends[0] <= each.truth <= ends[1]
            for each in made
            if each.family == family
            for ends in [ends_by(each, low, high)]
        ]
        found[family] = {"too_low": low, "too_high": high, "holds": float(np.mean(inside))}
    return found


def summary(made: list[Window]) -> dict[str, Any]:
    """All figures."""
    parts = {"all": made}
    for name in ("network", "baseline", "rows", "family"):
        for value in dict.fromkeys(getattr(each, name) for each in made):
            of = value if isinstance(value, str) else f"{value:,}"
            of = {"baseline": f"baselines of {of}", "rows": f"windows of {of}"}.get(name, of)
            parts[of] = [each for each in made if getattr(each, name) == value]
    intervals = {
        name: {
            "windows": len(part),
            "earlier": holds(part, "earlier"), "earlier width": width(part, "earlier"),
            "holds": holds(part, "ends"), "width": width(part, "ends"),
        }
        for name, part in parts.items()
    }  # fmt: skip
    low, high = fitted(made)
    by_shift = {
        shift: _means([each for each in made if each.shift == shift and _plain(each)])
        for shift in dict.fromkeys(each.shift for each in made)
    }
    return {
        "intervals": intervals,
        "fitted": {"too_low": low, "too_high": high},
        "left out": left_out(made),
        "methods": methods(made),
        "shifts": by_shift,
    }


def _plain(each: Window) -> bool:
    return each.network == "14 epochs" and each.baseline == max(BASELINES) and each.rows == max(SIZES)


def _means(made: list[Window]) -> dict[str, float]:
    names = {"truth": "truth", "estimate": "estimate", "moved": "moved"}
    found = {key: float(np.mean([getattr(each, name) for each in made])) for key, name in names.items()}
    ends = np.mean([each.ends for each in made], axis=0)
    return found | {"low": float(ends[0]), "high": float(ends[1])}


def methods(made: list[Window]) -> dict[str, dict[str, float]]:
    """How far each estimate is off in the mean, of changed images and of other shares of classes."""
    large = [each for each in made if each.rows == max(SIZES)]
    named = {"thresholded confidence": lambda each: each.estimate} | {
        name: lambda each, name=name: each.others[name] for name in large[0].others
    }
    return {
        name: {
            kind: float(np.mean([abs(told(each) - each.truth) for each in large if (each.shift == "classes") == flag]))
            for kind, flag in (("images", False), ("classes", True))
        }
        for name, told in named.items()
    }


def show(found: dict[str, Any]) -> None:
    """The tables, as the documentation has them."""
    print("\n| windows | how many | earlier interval holds | mean width | interval holds | mean width |")
    print("|---|---|---|---|---|---|")
    for name, part in found["intervals"].items():
        cells = [f"{100 * part[key]:.0f}%" for key in ("earlier", "earlier width", "holds", "width")]
        print(f"| {name} | {part['windows']:,} | {' | '.join(cells)} |")
    print("\n| left out | too low | too high | holds there |\n|---|---|---|---|")
    for name, part in {"nothing": found["fitted"], **found["left out"]}.items():
        inside = f"{100 * part['holds']:.0f}%" if "holds" in part else ""
        print(f"| {name} | {part['too_low']:.2f} | {part['too_high']:.2f} | {inside} |")
    print("\n| method | changed images | other shares of classes |\n|---|---|---|")
    for name, part in found["methods"].items():
        print(f"| {name} | {100 * part['images']:.1f} | {100 * part['classes']:.1f} |")
    print("\n| shift | true | estimate | interval | answers moved |\n|---|---|---|---|---|")
    for name, part in found["shifts"].items():
        true, told, low, high, moved = (
            f"{100 * part[key]:.0f}%" for key in ("truth", "estimate", "low", "high", "moved")
        )
        print(f"| {name} | {true} | {told} | {low} to {high} | {moved} |")


def main() -> int:
    """Ask, estimate, hold against the labels, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    results.add_argument(parser)
    options = parser.parse_args()
    if not (options.cache / _FILE).exists() and not (options.data / "cifar10" / "train").is_dir():
        print(f"skipped: {options.data} has no cifar10/train/<class>/*.jpg; name its folder with --data")
        return 0
    found = summary(windows(answers(options.data, options.cache)))
    show(found)
    results.write(options.json, "drift/accuracy", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
