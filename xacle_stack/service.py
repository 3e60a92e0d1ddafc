"""An HTTP service that scores uploaded sounds against texts.

It opens no address and no file that a request names: sounds come in the body of the request.
"""

import asyncio
import base64
import binascii
import logging
import tempfile
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xacle_stack._optional import require
from xacle_stack._types import FloatArray
from xacle_stack.audio import Clip, ClipSource, read_clip
from xacle_stack.errors import AudioError, ClipTooLongError, PairsError
from xacle_stack.pairs import Pairs
from xacle_stack.scorer import Scorer

if TYPE_CHECKING:
    from fastapi import FastAPI

_LOGGER = logging.getLogger(__name__)
_RETRY_AFTER_S = 1
_FORM_FIELDS = ("audio", "text", "id")
_AUDIO_HELP = "Base64 of a wav, flac, ogg or mp3 file. No URL and no path."


@dataclass(frozen=True)
class Limits:
    """What the service takes.

    Attributes
    ----------
    max_bytes : int
        Of the body of a request.
    max_duration_s : float
        Of a clip.
    max_batch : int
        Clips of one request, and clips that are scored together.
    max_wait_ms : float
        How long the first of a batch waits for others.
    max_queue : int
        Clips that wait to be scored; a request beyond is answered with 503.
    """

    max_bytes: int = 32 << 20
    max_duration_s: float = 60.0
    max_batch: int = 32
    max_wait_ms: float = 5.0
    max_queue: int = 128


class RefusedError(Exception):
    """A request is refused: the status, the reason, and the item's index if it is one item's."""

    def __init__(self, status: int, reason: str, item: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.item = status, reason, item


class ScoreItem(BaseModel):
    """A sound and a text."""

    model_config = ConfigDict(extra="forbid")
    audio: str = Field(description=_AUDIO_HELP)
    text: str
    id: str | None = Field(None, description="Comes out again with the score.")


class ScoreRequest(BaseModel):
    """Sounds and texts as JSON."""

    model_config = ConfigDict(extra="forbid")
    items: list[ScoreItem] = Field(min_length=1)


class ScoreAnswer(BaseModel):
    """Scores in the order of the items; `ids` if any item has one."""

    scores: list[float]
    ids: list[str | None] | None = None


class Refusal(BaseModel):
    """Why a request was refused; `item` is the index of the first item at fault."""

    detail: str
    item: int | None = None


def create_app(scorer: Scorer, limits: Limits | None = None, *, name: str = "scorer") -> "FastAPI":
    """Return the service as an ASGI application.

    Parameters
    ----------
    scorer : Scorer
        A fitted one.
    limits : Limits, optional
    name : str, default="scorer"
        What ``/health`` calls the model.

    Returns
    -------
    app : FastAPI
        With ``POST /score``, ``GET /health`` and ``GET /openapi.json``.

    Raises
    ------
    MissingExtraError
        If FastAPI is not installed.

    Examples
    --------
    >>> app = create_app(scorer, Limits(max_duration_s=30))  # doctest: +SKIP
    """
    for package in ("fastapi", "python_multipart"):
        require(package, extra="serve", purpose="the service")
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import JSONResponse
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException

    limits = Limits() if limits is None else limits
    batcher = _Batcher(scorer, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(batcher.start)
        try:
            yield
        finally:
            await run_in_threadpool(batcher.close)

    # The pages of FastAPI load their scripts from another server, so there are none.
    app = FastAPI(
        title="xacle-stack",
        version=version("xacle-stack"),
        description="Scores how well sounds match texts, from 0 to 10.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )

    @app.exception_handler(RefusedError)
    async def refuse(_: Request, refused: RefusedError) -> JSONResponse:
        headers = {"Retry-After": str(_RETRY_AFTER_S)} if refused.status == 503 else None
        content = Refusal(detail=refused.reason, item=refused.item).model_dump()
        return JSONResponse(content, refused.status, headers)

    async def read_form(request: Request) -> list[tuple[bytes, str, str | None]]:
        n_most = limits.max_batch + 1  # one more, to say what is wrong
        try:
            form = await request.form(
                max_files=n_most, max_fields=2 * n_most, max_part_size=limits.max_bytes
            )
        except HTTPException as error:
            raise RefusedError(422, f"the form cannot be read: {error.detail}") from None
        try:
            values = {field: form.getlist(field) for field in form}
            if unknown := sorted(values.keys() - set(_FORM_FIELDS)):
                raise RefusedError(422, f"unknown fields {unknown!r}. Expected audio, text and id.")
            files = values.get("audio", [])
            sounds = [await file.read() for file in files if isinstance(file, UploadFile)]
            texts = [text for text in values.get("text", []) if isinstance(text, str)]
            ids: list[str | None] = [one for one in values.get("id", []) if isinstance(one, str)]
        finally:
            await form.close()
        if not sounds or len(sounds) < len(files):
            raise RefusedError(422, "audio: expected one uploaded file or more.")
        texts = texts * len(sounds) if len(texts) == 1 else texts
        if len(texts) != len(sounds) or len(ids) not in (0, len(sounds)):
            raise RefusedError(
                422,
                f"audio: {len(sounds)} files, text: {len(texts)}, id: {len(ids)}. Give one text "
                "for all files or one for each; and no id, or one for each.",
            )
        return list(zip(sounds, texts, ids or [None] * len(sounds), strict=True))

    @app.post(
        "/score",
        response_model=ScoreAnswer,
        response_model_exclude_none=True,
        responses={
            status: {"model": Refusal, "description": why}
            for status, why in {
                413: "Too many bytes or items, or a clip too long.",
                415: "Neither JSON nor a form.",
                422: "A sound, a text or a field that cannot be used.",
                500: "An encoder failed.",
                503: "Too many requests wait; try again later.",
            }.items()
        },
        openapi_extra={"requestBody": _request_body()},
    )
    async def score(request: Request) -> ScoreAnswer:
        """Score sounds against texts: all of them, or none with the reason."""
        bounded = Request(request.scope, _bounded(request, limits.max_bytes))
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            items = _read_json(await bounded.body())
        elif kind == "multipart/form-data":
            items = await read_form(bounded)
        else:
            raise RefusedError(415, "the body must be application/json or multipart/form-data.")
        if len(items) > limits.max_batch:
            raise RefusedError(413, f"{len(items)} items; one request may have {limits.max_batch}.")
        texts = [_checked_text(text, index) for index, (_, text, _) in enumerate(items)]
        batcher.check_room(len(items))
        clips = [
            await run_in_threadpool(_decoded, sound, limits.max_duration_s, index)
            for index, (sound, _, _) in enumerate(items)
        ]
        scores = await asyncio.wrap_future(batcher.submit(clips, texts))
        ids = [one for _, _, one in items]
        return ScoreAnswer(scores=scores.tolist(), ids=ids if any(ids) else None)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Say which model is served, and with which limits."""
        return {
            "status": "ready",
            "model": name,
            "encoders": [choice.info.name for choice in scorer.recipe.encoders],
            "versions": {one: version(one) for one in ("xacle-stack", "numpy", "fastapi")},
            "limits": asdict(limits),
        }

    return app


def _request_body() -> dict[str, Any]:
    """Describe the two kinds of bodies for OpenAPI; FastAPI sees neither."""
    item = ScoreItem.model_json_schema()
    of_form = {
        "type": "object",
        "required": ["audio", "text"],
        "additionalProperties": False,
        "properties": {
            "audio": {"type": "array", "items": {"type": "string", "format": "binary"}},
            "text": {"type": "array", "items": {"type": "string"}},
            "id": {"type": "array", "items": {"type": "string"}},
        },
    }
    of_json = {
        "type": "object",
        "required": ["items"],
        "additionalProperties": False,
        "properties": {"items": {"type": "array", "minItems": 1, "items": item}},
    }
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": of_form},
            "application/json": {"schema": of_json},
        },
    }


def _bounded(request: Any, max_bytes: int) -> Any:
    """Return a request's source of messages that ends where the body becomes too large."""
    too_large = RefusedError(413, f"the body is too large; the limit is {max_bytes} bytes.")
    promised = request.headers.get("content-length", "0")
    n_bytes = 0

    async def receive() -> Any:
        nonlocal n_bytes
        if promised.isdecimal() and int(promised) > max_bytes:
            raise too_large
        message = await request.receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > max_bytes:
            raise too_large
        return message

    return receive


def _read_json(body: bytes) -> list[tuple[bytes, str, str | None]]:
    try:
        request = ScoreRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = first["loc"]
        index = place[1] if len(place) > 1 and isinstance(place[1], int) else None
        where = ".".join(map(str, place)) or "the body"
        raise RefusedError(422, f"{where}: {first['msg']}.", index) from None
    items = []
    for index, item in enumerate(request.items):
        try:
            sound = base64.b64decode(item.audio, validate=True)
        except (binascii.Error, ValueError):
            raise RefusedError(
                422, f"item {index}: audio is not base64 of an audio file.", index
            ) from None
        items.append((sound, item.text, item.id))
    return items


def _checked_text(text: str, index: int) -> str:
    try:
        return Pairs("request", (str(index),), (), (text,)).captions[0]
    except PairsError as error:
        raise RefusedError(422, f"item {index}: text cannot be used: {error}", index) from None


class _Decoded(ClipSource):
    """A clip that was decoded already."""

    def __init__(self, clip: Clip) -> None:
        super().__init__("a clip of a request")
        self._clip = clip

    def read(self) -> Clip:
        return self._clip

    def duration_s(self) -> float:
        return self._clip.duration_s


def _decoded(sound: bytes, max_duration_s: float, index: int) -> ClipSource:
    """Decode an uploaded file, which lies in a private folder for that time."""
    with tempfile.TemporaryDirectory(prefix="xacle-stack-") as folder:
        path = Path(folder) / "audio"
        path.write_bytes(sound)
        try:
            return _Decoded(read_clip(path, max_duration_s))
        except AudioError as error:
            status = 413 if isinstance(error, ClipTooLongError) else 422
            reason = str(error).replace(str(path), f"item {index}")
            raise RefusedError(status, reason, index) from None


@dataclass(frozen=True, eq=False)
class _Waiting:
    clips: Sequence[ClipSource]
    texts: Sequence[str]
    future: "Future[FloatArray]"


class _Batcher:
    """Collects the clips of concurrent requests, and scores them in one thread."""

    def __init__(self, scorer: Scorer, limits: Limits) -> None:
        self._scorer, self._limits = scorer, limits
        self._waiting: deque[_Waiting] = deque()
        self._n_waiting = 0
        self._is_closing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Load the encoders by scoring a first clip, and start."""
        tone = np.sin(np.arange(16_000, dtype=np.float32) / 8) / 4
        self._scorer.score_clips([tone], ["a tone"], sample_rate_hz=16_000)
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="xacle-stack-scorer")
        self._thread.start()

    def close(self) -> None:
        """Score what waits, and end."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def check_room(self, n_clips: int) -> None:
        """Raise RefusedError if there is no room in the queue."""
        if self._is_closing or self._n_waiting + n_clips > max(
            self._limits.max_queue, self._limits.max_batch
        ):
            raise RefusedError(503, "too many clips wait already. Try again later.")

    def submit(self, clips: Sequence[ClipSource], texts: Sequence[str]) -> "Future[FloatArray]":
        """Let clips wait for their scores."""
        future: Future[FloatArray] = Future()
        with self._changed:
            self.check_room(len(clips))
            self._waiting.append(_Waiting(clips, texts, future))
            self._n_waiting += len(clips)
            self._changed.notify()
        return future

    def _run(self) -> None:
        while batch := self._next_batch():
            self._score(batch)

    def _next_batch(self) -> list[_Waiting]:
        """Wait for a batch; an empty one is the end."""
        most = self._limits.max_batch
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            if self._n_waiting < most and not self._is_closing:
                end = time.monotonic() + self._limits.max_wait_ms / 1000
                while self._n_waiting < most and (left := end - time.monotonic()) > 0:
                    self._changed.wait(left)
            batch: list[_Waiting] = []
            n_clips = 0
            while self._waiting and n_clips + len(self._waiting[0].clips) <= most:
                batch.append(self._waiting.popleft())
                n_clips += len(batch[-1].clips)
            self._n_waiting -= n_clips
        return batch

    def _score(self, batch: Sequence[_Waiting]) -> None:
        """Score a batch, or each request alone if the batch fails."""
        # Who has gone away meanwhile is left out.
        running = [one for one in batch if one.future.set_running_or_notify_cancel()]
        if not running:
            return
        try:
            scores = self._scores(running)
        except Exception:
            _LOGGER.exception("A batch of %d requests could not be scored.", len(running))
            for one in running:
                self._score_alone(one)
            return
        start = 0
        for one in running:
            one.future.set_result(scores[start : start + len(one.clips)])
            start += len(one.clips)

    def _score_alone(self, one: _Waiting) -> None:
        try:
            one.future.set_result(self._scores([one]))
        except Exception:
            reason = "the clips could not be scored; the log of the service says why."
            one.future.set_exception(RefusedError(500, reason))

    def _scores(self, batch: Sequence[_Waiting]) -> FloatArray:
        clips = [clip for one in batch for clip in one.clips]
        texts = [text for one in batch for text in one.texts]
        return self._scorer.score_clips(clips, texts)
