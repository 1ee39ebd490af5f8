"""Sending a folder of sketches to a LensAI server, as `Sketches.publish_sketches` does."""

from __future__ import annotations

import time
from pathlib import Path

from lensai_integrations.errors import InputError
from lensai_integrations.lensai import files
from lensai_integrations.storage.posting import checked_url
from lensai_integrations.uploads import Upload, archive, send, time_named


def publish_folder(folder: Path, endpoint: str, sensor_id: str, *, token: str | None, timeout: float) -> None:
    """Post the sketches in a folder, once; see `Sketches.publish_sketches`.

    The request speaks both dialects: form fields and a token, as devices do, and the old Python profiler's headers.
    """
    checked_url("endpoint_url", endpoint)
    named = time_named(folder.resolve().name)
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files.paths(folder)}
    if not contents:
        raise InputError(f"folder_path={str(folder)!r} has no sketches: pass the folder save_sketches wrote to")
    timestamp = int(time.time()) if named is None else named
    upload = Upload(endpoint, sensor_id, timestamp, archive(contents, timestamp), fresh=named is None)
    send(upload, token=token, timeout=timeout, retries=0, older=True)
