from __future__ import annotations

import numpy as np

from lensai_integrations import Profiler
from lensai_integrations.lightning import BaselineCallback
from lensai_integrations.lightning.fit import LightningFit


def test_stop_forgets_recordings_and_keeps_profiles():
    profiler = Profiler(source="validation")
    profiler.update(labels=np.arange(4))
    state = LightningFit(BaselineCallback()._options, 0, 1)
    state.record("validation", everything=True)
    state.profiles = {"validation": profiler.profile()}
    state.stop()

    assert state.recordings == {}
    assert state.profiles["validation"].n == 4
