"""The service: what it answers, what it refuses, and that batches change no score."""

import base64
import io
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")
from fastapi.testclient import TestClient

from xacle_stack import Scorer
from xacle_stack.features import PairEmbeddings
from xacle_stack.recipe import recipe_from
from xacle_stack.service import Limits, create_app

LIMITS = Limits(max_bytes=200_000, max_duration_s=2.0, max_batch=4, max_wait_ms=20, max_queue=8)


def sound(seed: int = 0, seconds: float = 0.5, kind: str = "WAV") -> bytes:
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, int(16_000 * seconds))
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format=kind)
    return file.getvalue()


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def item(seed: int = 0, text: str = "rain", **more: object) -> dict[str, object]:
    return {"audio": encoded(sound(seed)), "text": text, **more}


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    settings = {"spaces": ["mini-mel"], "features": {"n_components": 2}}
    recipe = recipe_from({"name": "mel", **settings, "stacker": {"preset": "paper"}}, "a test")
    vectors = np.random.default_rng(0).normal(size=(2, 40, 64))
    pairs = PairEmbeddings({"mini-mel": tuple(vectors)})
    return Scorer(recipe, device="cpu").fit(pairs, np.arange(40.0) / 4)


@pytest.fixture(scope="module")
def client(scorer: Scorer) -> Iterator[TestClient]:
    with TestClient(create_app(scorer, LIMITS, name="mel")) as client:
        yield client


def expected(scorer: Scorer, tmp_path: Path, content: bytes, text: str) -> float:
    (tmp_path / "clip").write_bytes(content)
    return float(scorer.score_clips(tmp_path / "clip", text)[0])


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_form_and_json_get_the_scores_of_the_library(
    scorer: Scorer, client: TestClient, tmp_path: Path, kind: str
) -> None:
    content = sound(kind=kind)
    wanted = [expected(scorer, tmp_path, content, text) for text in ("rain", "a dog")]
    body = [{"audio": encoded(content), "text": text} for text in ("rain", "a dog")]
    answer = client.post("/score", json={"items": [{**body[0], "id": "first"}, body[1]]})
    assert answer.status_code == 200
    assert answer.json()["ids"] == ["first", None]
    np.testing.assert_allclose(answer.json()["scores"], wanted, rtol=1e-6)
    files = [("audio", ("a.bin", content)), ("audio", ("../../b", content))]
    answer = client.post("/score", files=files, data={"text": ["rain", "a dog"]})
    np.testing.assert_allclose(answer.json()["scores"], wanted, rtol=1e-6)
    answer = client.post("/score", files=files, data={"text": "rain", "id": ["x", "y"]})
    np.testing.assert_allclose(answer.json()["scores"], [wanted[0]] * 2, rtol=1e-6)
    assert answer.json()["ids"] == ["x", "y"]


TRUNCATED = sound()[:5000]
REFUSED = {
    "no audio": ({"items": [item(), {"audio": encoded(b"hello"), "text": "x"}]}, 422, 1, "audio"),
    "truncated": ({"items": [{"audio": encoded(TRUNCATED), "text": "x"}]}, 422, 0, "truncated"),
    "empty file": ({"items": [{"audio": "", "text": "x"}]}, 422, 0, "empty"),
    "a URL": ({"items": [{"audio": "http://a.b/c.wav", "text": "x"}]}, 422, 0, "base64"),
    "a path": ({"items": [{"audio": "/etc/passwd", "text": "x"}]}, 422, 0, "item 0"),
    "too long": (
        {"items": [{"audio": encoded(sound(seconds=2.5)), "text": "x"}]},
        413,
        0,
        r"too long.*\(2 s\)",
    ),
    "empty text": ({"items": [item(), item(text=" ")]}, 422, 1, "text"),
    "text no text": ({"items": [item(text=3)]}, 422, 0, "text"),
    "unknown field": ({"items": [item(url="x")]}, 422, 0, "url"),
    "unknown field on top": ({"items": [item()], "path": "x"}, 422, None, "path"),
    "no items": ({"items": []}, 422, None, "items"),
    "too many items": ({"items": [item()] * 5}, 413, None, "5 items.*4"),
    "too many bytes": ({"items": [{"audio": "A" * 300_000, "text": "x"}]}, 413, None, "200000"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_request_is_refused_with_the_item_and_the_reason(
    client: TestClient, case: str
) -> None:
    body, status, index, reason = REFUSED[case]
    answer = client.post("/score", json=body)
    assert answer.status_code == status
    assert set(answer.json()) == {"detail", "item"}
    assert answer.json()["item"] == index
    detail = answer.json()["detail"]
    assert re.search(reason, detail), detail
    assert not any(word in detail for word in ("/tmp", "xacle-stack-", "Traceback", ".py"))


def test_a_bad_form_is_refused(client: TestClient) -> None:
    audio = {"audio": ("a.wav", sound())}
    for files, data, reason in (
        (audio, {"text": "x", "url": "http://a.b"}, "url"),
        (audio, {"text": ["x", "y"]}, "1 files, text: 2"),
        (audio, {}, "text: 0"),
        (audio, {"text": "x", "id": ["a", "b"]}, "id: 2"),
        (None, {"audio": "/etc/passwd", "text": "x"}, "body must be|uploaded file"),
    ):
        answer = client.post("/score", files=files, data=data)
        assert answer.status_code in (415, 422)
        assert re.search(reason, answer.json()["detail"])
    answer = client.post("/score", content=sound(), headers={"Content-Type": "audio/wav"})
    assert (answer.status_code, "json" in answer.json()["detail"]) == (415, True)
    broken = {"Content-Type": "multipart/form-data"}
    assert client.post("/score", content=b"x", headers=broken).status_code == 422
    assert client.post("/score", content=b"{", headers={"Content-Type": "application/json"}).json()[
        "detail"
    ]


def test_a_body_without_a_length_is_read_only_to_the_limit(client: TestClient) -> None:
    n_sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal n_sent
        for _ in range(10_000):
            n_sent += 1
            yield b" " * 10_000

    headers = {"Content-Type": "application/json"}
    answer = client.post("/score", content=endless(), headers=headers)
    assert answer.status_code == 413


def test_concurrent_requests_share_batches_and_keep_their_scores(
    scorer: Scorer, client: TestClient, tmp_path: Path, monkeypatch
) -> None:
    sizes = []
    score_clips = scorer.score_clips
    monkeypatch.setattr(
        scorer,
        "score_clips",
        lambda clips, texts: sizes.append(len(clips)) or score_clips(clips, texts),
    )
    wanted = [expected_score(score_clips, tmp_path, seed) for seed in range(8)]
    barrier = threading.Barrier(8)

    def ask(seed: int) -> tuple[int, list[float]]:
        barrier.wait()
        bodies = [item(seed)] if seed % 2 else [item(seed), {"audio": "", "text": "x"}]
        answer = client.post("/score", json={"items": bodies})
        return answer.status_code, answer.json().get("scores")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert [status for status, _ in answers] == [422, 200] * 4
    assert max(sizes) > 1
    for seed in (1, 3, 5, 7):
        np.testing.assert_allclose(answers[seed][1], wanted[seed], rtol=1e-6)


def expected_score(score_clips, tmp_path: Path, seed: int) -> list[float]:
    path = tmp_path / f"{seed}.wav"
    path.write_bytes(sound(seed))
    return score_clips([path], ["rain"]).tolist()


def test_what_fails_in_a_batch_fails_alone(scorer: Scorer, client: TestClient, monkeypatch) -> None:
    score_clips = scorer.score_clips

    def fails_on_dogs(clips, texts):
        if "dog" in texts:
            raise RuntimeError("/secret/place")
        return score_clips(clips, texts)

    monkeypatch.setattr(scorer, "score_clips", fails_on_dogs)

    def ask(text: str) -> tuple[int, str]:
        answer = client.post("/score", json={"items": [item(text=text)]})
        return answer.status_code, answer.text

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, ["rain", "dog", "rain", "dog"]))
    assert [status for status, _ in answers] == [200, 500, 200, 500]
    assert not any("secret" in text for _, text in answers)


def test_a_full_queue_asks_to_come_back(scorer: Scorer, monkeypatch) -> None:
    score_clips, may_go, began = scorer.score_clips, threading.Event(), threading.Event()

    def slow(clips, texts, **rate):
        if not rate:
            began.set()
            assert may_go.wait(20)
        return score_clips(clips, texts, **rate)

    monkeypatch.setattr(scorer, "score_clips", slow)
    limits = Limits(max_batch=1, max_queue=1, max_wait_ms=0)
    body = {"items": [item()]}
    with TestClient(create_app(scorer, limits)) as client, ThreadPoolExecutor(3) as pool:
        first = pool.submit(client.post, "/score", json=body)
        assert began.wait(20)
        try:
            # One is scored and one may wait, so of two more one is sent away.
            others = [pool.submit(client.post, "/score", json=body) for _ in range(2)]
            refused = next(as_completed(others, timeout=20)).result()
        finally:
            may_go.set()
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert first.result().status_code == 200
        assert sorted(one.result().status_code for one in others) == [200, 503]


def test_health_and_openapi_say_what_there_is(client: TestClient) -> None:
    health = client.get("/health").json()
    assert (health["status"], health["model"], health["encoders"]) == ("ready", "mel", ["mini-mel"])
    assert health["limits"]["max_batch"] == 4
    assert "xacle-stack" in health["versions"]
    described = client.get("/openapi.json").json()["paths"]["/score"]["post"]
    assert set(described["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert {"200", "413", "415", "422", "503"} <= set(described["responses"])
    assert client.get("/docs").status_code == 404  # it would load scripts from elsewhere


def test_without_fastapi_the_extra_is_named() -> None:
    code = """
import sys
sys.modules["fastapi"] = None
from xacle_stack.errors import MissingExtraError
from xacle_stack.service import create_app
try:
    create_app(None)
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "xacle-stack[serve]" in done.stdout
