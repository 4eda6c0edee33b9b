"""Where the points of a sweep come from, and which trials stop early: lists, or a study of Optuna."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from satlight.errors import SatlightError
from satlight.sweeps.definition import Parameter, Point, Sweep
from satlight.sweeps.trials import COMPLETE, PRUNED, Trial

_JOURNAL = "study.log"
_STARTUP = 4
"""Random trials before the first one that is proposed, and trials before the first one that is stopped."""


class Source(Protocol):
    """Proposes points, and learns from their trials.

    Args:
        known: Keys of trials that an earlier call has finished and that are not proposed again.
    """

    known: list[str]

    def ask(self) -> tuple[Point, Any] | None:
        """Return the next point and a token for it; None at the end."""

    def should_stop(self, token: Any, epoch: int, value: float) -> bool:
        """Return True if the trial with this value at this epoch should be stopped."""

    def tell(self, token: Any, trial: Trial) -> None:
        """Learn the result of a point."""


class Listed:
    """Points that do not depend on results: a grid, or random ones."""

    def __init__(self, points: Iterator[Point], limit: int | None) -> None:
        self._points = islice(points, limit)
        self.known: list[str] = []

    def ask(self) -> tuple[Point, Any] | None:
        point = next(self._points, None)
        return None if point is None else (point, None)

    def should_stop(self, token: Any, epoch: int, value: float) -> bool:
        return False

    def tell(self, token: Any, trial: Trial) -> None: ...


class Study:
    """A study of Optuna in a journal file, so that an interrupted sweep continues with what it has learned.

    With ``method: bayes``, TPE proposes the points; otherwise they are listed, and the study only stops trials that
    are below the median of the others at the same epoch.

    Args:
        sweep: The sweep.
        folder: Folder of the journal.
        identity: Name of the study; another name starts a new one.
        limit: Maximum number of points, with those of earlier calls.
        seed: Seed of the proposals.

    Raises:
        SatlightError: Optuna is not installed.

    Reference:
        TPE: [Bergstra et al. 2011].
    """

    def __init__(self, sweep: Sweep, folder: Path, identity: str, limit: int | None, seed: int = 0) -> None:
        optuna = _optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        backend = optuna.storages.journal.JournalFileBackend(str(folder / _JOURNAL))
        self._optuna, self._sweep = optuna, sweep
        self._distributions = {key: _distribution(optuna, one) for key, one in sweep.parameters.items()}
        self._study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name=identity,
            direction="maximize" if sweep.maximize else "minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP),
            load_if_exists=True,
        )
        self._proposes = sweep.method == "bayes"
        failed = optuna.trial.TrialState.FAIL
        for trial in self._study.get_trials(deepcopy=False):
            if not trial.state.is_finished():  # of a killed process; its run continues
                self._study.tell(trial.number, state=failed)
        ended = [one for one in self._study.get_trials() if self._proposes]
        finished = [one.user_attrs["key"] for one in ended if one.state is not failed]
        self.known, done = list(dict.fromkeys(finished)), len(finished)
        # Failed and interrupted points come first: their keys find a kept failure or a run to continue.
        self._again = list({repr(one.params): one.params for one in ended if one.state is failed}.values())
        sampler = optuna.samplers.TPESampler(n_startup_trials=_STARTUP, constant_liar=True, seed=seed + done)
        self._study.sampler = sampler
        self._listed = Listed(sweep.points(seed), limit)
        self._left = (limit or 0) - done

    def ask(self) -> tuple[Point, Any] | None:
        if not self._proposes:
            found = self._listed.ask()
            return None if found is None else (found[0], self._study.ask())
        if self._left <= 0:
            return None
        self._left -= 1
        if self._again:
            self._study.enqueue_trial(self._again.pop(0))
        trial = self._study.ask(self._distributions)
        return {key: trial.params[key] for key in self._sweep.parameters}, trial

    def should_stop(self, token: Any, epoch: int, value: float) -> bool:
        token.report(value, epoch)
        return bool(token.should_prune()) and self._sweep.early_terminate

    def tell(self, token: Any, trial: Trial) -> None:
        states = self._optuna.trial.TrialState
        token.set_user_attr("key", trial.key)
        if trial.value is None or trial.state not in (COMPLETE, PRUNED):
            self._study.tell(token, state=states.FAIL)
        elif trial.state == PRUNED:
            self._study.tell(token, state=states.PRUNED)
        else:
            self._study.tell(token, trial.value)


def _optuna() -> Any:
    """Import Optuna."""
    try:
        import optuna
    except ImportError as error:
        raise SatlightError(
            "`method: bayes` and `early_terminate` need Optuna 5 or later: pip install 'satlight[sweep]'; or set "
            "method: random and remove early_terminate"
        ) from error
    if int(optuna.__version__.split(".")[0]) < 5:
        raise SatlightError(f"Optuna {optuna.__version__} is installed, 5 or later is needed: pip install -U optuna")
    import optuna.storages.journal

    return optuna


def _distribution(optuna: Any, parameter: Parameter) -> Any:
    kinds = optuna.distributions
    if parameter.values:
        return kinds.CategoricalDistribution(parameter.values)
    if parameter.integer:
        return kinds.IntDistribution(int(parameter.low), int(parameter.high))
    return kinds.FloatDistribution(parameter.low, parameter.high, log=parameter.log)
