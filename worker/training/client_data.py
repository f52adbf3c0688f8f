"""The images of a worker's clients, opened when first needed; used inside the training process only."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd.daemon.logs import event as log_event
from ssd.updates.declaration import Declaration
from worker.errors import TaskFault

if TYPE_CHECKING:
    # ssd.data brings torch along, which a method without images never needs.
    from ssd.data.images.source import ImageFormat
    from ssd.data.open import DataConfig

Json = Any
_log = logging.getLogger(__name__)


class ClientData:
    """Opens clients' images and keeps the last `limit` open. `config`: the fields of a `DataConfig`, or None."""

    def __init__(self, config: Mapping[str, Json] | None, limit: int) -> None:
        self._fields = config
        self._limit = limit
        self._open: OrderedDict[tuple[str, int, int], object] = OrderedDict()
        self._tests: OrderedDict[tuple[str, int, int], object] = OrderedDict()
        self._probe: tuple[object, object] | None = None

    def open(self, client: str, declaration: Declaration) -> object:
        """The client's `ImageSource`; None if the method needs no images.

        Raises:
            TaskFault: there are no images for the client here.
        """
        if not declaration.needs_images:
            return None
        image = _format(declaration)
        key = (client, image.size, image.channels)
        if key in self._open and _changed(self._open[key]):
            del self._open[key]
        if key not in self._open:
            from ssd.data.open import open_client

            source = open_client(self._config(), client, image)
            report = getattr(source, "report", None)
            refused = {} if report is None else {str(why): count for why, count in report.refused.items()}
            log_event(
                _log,
                logging.INFO,
                "images_opened",
                client=client,
                images=len(source),
                skipped=sum(refused.values()),
                reasons=refused,
            )
            while len(self._open) >= self._limit:
                self._open.popitem(last=False)
            self._open[key] = source
        self._open.move_to_end(key)
        return self._open[key]

    def open_test(self, client: str, declaration: Declaration) -> object:
        """The client's labelled test `ImageSource`; None if it has none or the method needs no images.

        Raises:
            TaskFault: this worker has no images at all.
        """
        if not declaration.needs_images:
            return None
        image = _format(declaration)
        key = (client, image.size, image.channels)
        if key in self._tests and _changed(self._tests[key]):
            del self._tests[key]
        if key not in self._tests:
            from ssd.data.open import open_client_test

            source = open_client_test(self._config(), client, image)
            while len(self._tests) >= self._limit:
                self._tests.popitem(last=False)
            self._tests[key] = source
        self._tests.move_to_end(key)
        return self._tests[key]

    def probe(self, declaration: Declaration) -> object:
        """The labelled `ProbeData`; None if the method needs no images."""
        if not declaration.needs_images:
            return None
        image = _format(declaration)
        if self._probe is None or self._probe[0] != image:
            from ssd.data.open import open_probe

            self._probe = (image, open_probe(self._config(), image))
        return self._probe[1]

    def forget(self) -> None:
        """Look through every folder anew when it is next asked for: one is not what it was."""
        self._open.clear()
        self._tests.clear()
        self._probe = None

    def _config(self) -> DataConfig:
        from ssd.data.open import DataConfig

        if self._fields is None:
            raise TaskFault(
                "data_missing", "the method needs images and this worker has no [data] kind", whole_task=True
            )
        values = dict(self._fields)
        for name in ("root", "partition", "probe", "manifest", "index_dir"):
            values[name] = None if values.get(name) is None else Path(values[name])
        for name in ("folders", "test_folders"):
            values[name] = {client: Path(folder) for client, folder in values[name].items()}
        values["classes"] = tuple(values["classes"])
        window = values.get("window")
        values["window"] = None if window is None else tuple(window)
        return DataConfig(**values)


def _changed(source: object) -> bool:
    """Whether a folder of images gained or lost files since it was looked through."""
    changed = getattr(source, "changed", None)
    return changed is not None and bool(changed())


def _format(declaration: Declaration) -> ImageFormat:
    from ssd.data.images.source import ImageFormat

    image = declaration.config.get("image")
    if not isinstance(image, Mapping):
        raise TaskFault(
            "method_unavailable",
            "the method needs images but its config has no `image` table",
            whole_task=True,
        )
    return ImageFormat(size=image["size"], channels=image["channels"])
