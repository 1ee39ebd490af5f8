"""A fit that was killed and resumed by `BackupAndRestore` has the same baseline as one that was not."""

from __future__ import annotations

import json

import keras
import pytest

from lensai_integrations import Baseline
from lensai_integrations.errors import FormatError
from lensai_integrations.keras import BaselineCallback
from lensai_integrations.keras.fit import BEST, LATEST, Backup

ALL = {"inputs": 24, "outputs": 24, "embeddings/embedding": 24, "labels": 24}
FILE = "lensai-lensai.npz"


class Killed(BaseException):
    """Nothing can catch it but the test."""


class Kill(keras.callbacks.Callback):
    def __init__(self, epoch, batch=1):
        super().__init__()
        self.at, self.epoch = (epoch, batch), None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise Killed


class Score(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = [1, 3, 2, 2][epoch]


@pytest.fixture
def killed(model, fit, tmp_path):
    """`killed(epoch, *callbacks)`: a fit that is killed in the epoch, with a backup in `backup`."""

    def run(epoch, *callbacks):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        with pytest.raises(Killed):
            fit(model(), *(callbacks or [BaselineCallback(["embedding"])]), backup, Kill(epoch), epochs=4)

    return run


@pytest.fixture
def resumed(model, fit, tmp_path):
    """`resumed(*callbacks)`: the fit again, as a new program would; returns our callback and the epochs trained."""

    def run(*callbacks, epochs=4, **arguments):
        ours = BaselineCallback(["embedding"])
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", **arguments)
        trains = model()
        fit(trains, ours, *callbacks, backup, epochs=epochs)
        return ours, trains.history.epoch

    return run


def test_a_resumed_fit_counts_every_row_once(killed, resumed, counts, tmp_path):
    killed(2)
    assert (tmp_path / "backup" / FILE).is_file()
    callback, epochs = resumed()
    baseline = Baseline.load(callback.directory_)

    assert epochs == [2, 3]
    assert (counts(baseline.reference), counts(baseline.training)) == (ALL, {"inputs": 40, "labels": 40})
    assert (baseline.info["epoch"], baseline.training.info["epoch"]) == (3, 3)
    assert baseline.warnings == []
    assert not (tmp_path / "backup").exists()  # Keras removes it


def test_a_fit_that_is_killed_again_at_once_still_has_the_last_complete_epoch(killed, counts, tmp_path, said):
    killed(2)
    callback = BaselineCallback(["embedding"])
    killed(2, callback)
    callback.detach()

    assert callback.baseline_.info["epoch"] == 1
    assert (counts(callback.baseline_.reference), counts(callback.baseline_.training)) == (
        ALL,
        {"inputs": 40, "labels": 40},
    )


def test_when_no_epoch_is_left_the_stored_baseline_is_logged(resumed, counts, tmp_path):
    first, _ = resumed(epochs=2, delete_checkpoint=False)
    stored = (tmp_path / "backup" / FILE).read_bytes()
    again, epochs = resumed(epochs=2, delete_checkpoint=False)

    assert epochs == []
    assert again.baseline_ is not None
    assert (again.baseline_.info["epoch"], counts(again.baseline_.reference)) == (1, ALL)
    assert list(again.baseline_.reference.summaries()) == list(first.baseline_.reference.summaries())
    assert (tmp_path / "backup" / FILE).read_bytes() == stored


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_best_epoch_comes_back_too(model, fit, tmp_path, ours_first):
    def callbacks(**threshold):
        ours = BaselineCallback()
        best = keras.callbacks.ModelCheckpoint(
            tmp_path / "best.keras", "score", mode="max", save_best_only=True, **threshold
        )
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        rest = [Score(), best, backup]
        return ours, [ours, *rest] if ours_first else [*rest, ours]

    with pytest.raises(Killed):
        fit(model(), *callbacks()[1], Kill(2), epochs=4)
    ours, both = callbacks(initial_value_threshold=3)
    fit(model(), *both, epochs=4)

    assert (ours.baseline_.info["epoch"], ours.baseline_.info["checkpoint"]) == (1, "best.keras")


@pytest.mark.parametrize("damage", [b"", b"not a zip", None])
def test_a_damaged_file_costs_a_warning(killed, resumed, warned, counts, tmp_path, damage):
    killed(1)
    path = tmp_path / "backup" / FILE
    path.write_bytes(path.read_bytes()[:-200] if damage is None else damage)
    callback, epochs = resumed()

    assert epochs == [1, 2, 3]
    assert len(warned("resuming: ")) == 1
    assert counts(callback.baseline_.reference) == ALL
    assert any(warning.startswith("resuming: ") for warning in callback.baseline_.warnings)


def test_a_fit_killed_in_its_first_epoch_begins_anew(killed, resumed, counts):
    killed(0)
    callback, epochs = resumed()

    assert epochs == [0, 1, 2, 3]
    assert (callback.baseline_.info["epoch"], counts(callback.baseline_.reference)) == (3, ALL)
    assert callback.baseline_.warnings == []


def test_a_folder_that_cannot_be_written_costs_a_warning(model, fit, warned, monkeypatch, tmp_path, counts):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lensai_integrations.keras.fit.pack", full)
    callback = BaselineCallback(["embedding"])
    fit(model(), keras.callbacks.BackupAndRestore(tmp_path / "backup"), callback)

    assert len(warned("backup: OSError(28")) == 1
    assert counts(callback.baseline_.reference) == ALL


@pytest.fixture
def folder(tmp_path):
    """A backup's folder with Keras's own file in it."""
    folder = tmp_path / "backup"
    folder.mkdir()
    (folder / "training_metadata.json").write_text(json.dumps({"epoch": 1, "batch": 0}))
    return folder


@pytest.fixture
def profile(model, fit, tmp_path):
    callback = BaselineCallback(layers=None, outputs=None, directory=tmp_path / "made")
    fit(model(), callback, epochs=1)
    return callback.baseline_.reference


def test_profiles_are_kept_by_which_and_source(folder, profile):
    siblings = [keras.callbacks.BackupAndRestore(folder)]
    Backup(siblings, "lensai/a").save({LATEST: {"validation": profile, "training": profile}, BEST: {}})
    loaded = Backup(siblings, "lensai/a").load()

    assert [path.name for path in sorted(folder.iterdir())] == ["lensai-lensai-a.npz", "training_metadata.json"]
    assert (sorted(loaded[LATEST]), loaded[BEST]) == (["training", "validation"], {})
    assert loaded[LATEST]["validation"].n == profile.n
    assert Backup(siblings, "lensai/b").load() == {LATEST: {}, BEST: {}}  # another callback's


def test_without_keras_own_file_nothing_is_resumed(folder, profile):
    backup = Backup([keras.callbacks.BackupAndRestore(folder)], "lensai")
    backup.save({LATEST: {"validation": profile}, BEST: {}})
    (folder / "training_metadata.json").unlink()

    assert backup.load() == {LATEST: {}, BEST: {}}


def test_a_folder_is_made_only_where_it_is_wanted(tmp_path, profile):
    backup = Backup([keras.callbacks.BackupAndRestore(tmp_path / "none")], "lensai")
    backup.save({LATEST: {"validation": profile}, BEST: {}}, create=False)
    assert not (tmp_path / "none").exists()
    backup.save({LATEST: {"validation": profile}, BEST: {}})
    assert (tmp_path / "none" / FILE).is_file()


@pytest.mark.parametrize("siblings", [[], [keras.callbacks.BackupAndRestore("gs://bucket/backup")]])
def test_without_a_folder_on_disk_nothing_is_kept(siblings, profile, tmp_path):
    backup = Backup(siblings, "lensai")
    backup.save({LATEST: {"validation": profile}, BEST: {}})

    assert backup.load() == {LATEST: {}, BEST: {}}
    assert not list(tmp_path.glob("**/lensai-lensai*"))


def test_a_file_of_something_else_is_refused(folder, profile):
    siblings = [keras.callbacks.BackupAndRestore(folder)]
    backup = Backup(siblings, "lensai")
    backup.save({"other": {"validation": profile}})

    with pytest.raises(FormatError, match="has 'other:validation', which is no profile of ours"):
        Backup(siblings, "lensai").load()
