from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from xacle_stack.errors import SubmissionError
from xacle_stack.metrics import evaluate
from xacle_stack.submission import (
    predicted_ids,
    predicted_split,
    read_predictions,
    write_evaluation,
    write_predictions,
)

IDS = ("b.wav", "a.wav", "c.wav")


@pytest.mark.parametrize(
    ("split", "column"),
    [("validation", "pred_score"), ("test", "prediction_score"), ("my set", "pred_score")],
)
def test_the_official_form(tmp_path: Path, split: str, column: str) -> None:
    path = tmp_path / "new" / "scores.csv"
    write_predictions(path, IDS, np.array([1.234, 10.0, -0.001]), split)
    assert path.read_bytes() == (
        f"wav_file_name,{column}\nb.wav,1.23\na.wav,10.00\nc.wav,0.00\n".encode()
    )
    assert [p.name for p in path.parent.iterdir()] == ["scores.csv"]
    np.testing.assert_array_equal(read_predictions(path, IDS), [1.23, 10.0, 0.0])


def written_evaluation(path: Path, y_true, y_pred) -> dict[str, float]:
    write_evaluation(path, evaluate(y_true, y_pred, n_bootstrap=2))
    header, *rows = (line.split(",") for line in path.read_text().splitlines())
    assert header == ["metric", "value"]
    return {name: float(value) for name, value in rows}


def test_an_official_file_has_the_metrics_of_scipy(tmp_path: Path, rng) -> None:
    ids = [f"{number:05d}.wav" for number in range(3000)]
    y_true = rng.integers(0, 41, size=3000) / 4  # means of four listeners, with many ties
    path = tmp_path / "scores.csv"
    write_predictions(path, ids, y_true / 2 + rng.normal(2, 1.5, size=3000), "test")
    rounded = np.array([float(line.split(",")[1]) for line in path.read_text().splitlines()[1:]])
    found = written_evaluation(tmp_path / "result.csv", y_true, read_predictions(path, ids))
    assert [*found] == ["SRCC", "LCC", "KTAU", "MSE", "N"]
    expected = {
        "SRCC": stats.spearmanr(y_true, rounded).statistic,
        "LCC": stats.pearsonr(y_true, rounded).statistic,
        "KTAU": stats.kendalltau(y_true, rounded).statistic,
        "MSE": np.mean((y_true - rounded) ** 2),
        "N": 3000,
    }
    assert found == pytest.approx(expected, rel=1e-12)


def test_an_official_file_counts_ties_as_tau_b_does(tmp_path: Path, rng) -> None:
    y_true, y_pred = rng.integers(0, 5, size=(2, 60)).astype(float)
    true_signs, signs = (np.sign(np.subtract.outer(y, y)) for y in (y_true, y_pred))
    tau = (true_signs * signs).sum() / np.sqrt((true_signs**2).sum() * (signs**2).sum())
    assert written_evaluation(tmp_path / "r.csv", y_true, y_pred)["KTAU"] == pytest.approx(tau)


def test_an_undefined_correlation_is_zero_in_an_official_file(tmp_path: Path) -> None:
    found = written_evaluation(tmp_path / "r.csv", [1.0, 2.0], [3.0, 3.0])
    assert found == {"SRCC": 0, "LCC": 0, "KTAU": 0, "MSE": 2.5, "N": 2}


def test_rows_are_matched_by_name(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("wav_file_name,pred_score\nc.wav,3\nb.wav,1\na.wav,2\n")
    assert read_predictions(path, IDS).tolist() == [1, 2, 3]


def test_tables_of_scored_pairs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("id,audio,text,score,low\nc.wav,c.wav,c,3,2\nb.wav,b,b,1,0\na.wav,a,a,2,1\n")
    assert read_predictions(path, IDS).tolist() == [1, 2, 3]
    assert predicted_ids(path) == ("c.wav", "b.wav", "a.wav")
    assert predicted_split(path) == "pairs"


def test_every_mismatch_is_told(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("wav_file_name,pred_score\na.wav,3\na.wav,3\nx.wav,1\nb.wav,high\n")
    with pytest.raises(SubmissionError, match=r"4 mistake\(s\)") as caught:
        read_predictions(path, IDS)
    for part in (
        "line 3: a second prediction for 'a.wav'",
        "line 4: 'x.wav' is not a pair",
        "line 5: the score of 'b.wav' is 'high'",
        "no prediction for 'c.wav'",
    ):
        assert part in str(caught.value)


def test_unreadable_files_are_explained(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="no such file"):
        read_predictions(tmp_path / "nowhere.csv", IDS)
    (tmp_path / "columns.csv").write_text("file,score\na.wav,1\n")
    with pytest.raises(SubmissionError, match=r"it has \['file', 'score'\]"):
        read_predictions(tmp_path / "columns.csv", IDS)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00wav")
    with pytest.raises(SubmissionError, match=r"binary\.csv: .*UTF-16.* UTF-8"):
        read_predictions(tmp_path / "binary.csv", IDS)
    (tmp_path / "both.csv").write_text("wav_file_name,pred_score,prediction_score\na.wav,1,2\n")
    with pytest.raises(SubmissionError, match="'pred_score' and 'prediction_score' "):
        read_predictions(tmp_path / "both.csv", IDS)


def test_unusable_scores_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with pytest.raises(SubmissionError, match=r"NaN or infinite:\n  - a.wav"):
        write_predictions(path, IDS, [1, np.nan, 2], "test")
    with pytest.raises(SubmissionError, match=r"3 pairs .* \(2,\)"):
        write_predictions(path, IDS, [1, 2], "test")
    (tmp_path / "file").touch()
    with pytest.raises(SubmissionError, match="cannot be written"):
        write_predictions(tmp_path / "file" / "scores.csv", IDS, [1, 2, 3], "test")
    assert not path.exists()


def test_decimal_commas_and_double_ids_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("wav_file_name,pred_score\na.wav,7,5\nb.wav,1\nc.wav,2\n")
    with pytest.raises(SubmissionError, match=r"line 2: 3 fields .*2; .*point"):
        read_predictions(path, IDS)
    with pytest.raises(SubmissionError, match="repeated:\n  - a.wav"):
        write_predictions(path, ["a.wav", "a.wav"], [1, 2], "test")


def test_the_pairs_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("wav_file_name,pred_score\nc.wav,3\nb.wav,1\nc.wav,2\n")
    assert predicted_ids(path) == ("c.wav", "b.wav")
    path.write_text("wav_file_name,pred_score\n")
    with pytest.raises(SubmissionError, match="no predictions"):
        predicted_ids(path)
    with pytest.raises(SubmissionError, match="no such file"):
        predicted_ids(tmp_path / "other.csv")


@pytest.mark.parametrize("text", ["0_5", "nan", "inf", "Infinity", "٥", "1e999", "0x1", "", "1,0 "])
def test_what_python_alone_calls_a_number_is_no_score(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(f'wav_file_name,pred_score\na.wav," 7.5 "\nb.wav,"{text}"\nc.wav,-1e-1\n')
    with pytest.raises(SubmissionError, match=r"1 mistake\(s\)") as caught:
        read_predictions(path, IDS)
    assert f"scores.csv, line 3: the score of 'b.wav' is {text!r}, not a number" in str(
        caught.value
    )


def test_blank_rows_and_a_space_before_quotes_are_read_over(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text('wav_file_name, pred_score\nb.wav, "1"\n,\n"a.wav", 2\n\nc.wav,3\n , \n')
    assert read_predictions(path, IDS).tolist() == [1, 2, 3]
    assert predicted_ids(path) == IDS


def test_pairs_of_one_file_are_predicted_by_their_ids(tmp_path: Path) -> None:
    path, ids = tmp_path / "scores.csv", ("a.wav#1", "a.wav#2", "b.wav")
    write_predictions(path, ids, [1, 2, 3], "test")
    assert read_predictions(path, ids).tolist() == [1, 2, 3]
    path.write_text("wav_file_name,prediction_score\na.wav,1\na.wav,2\nb.wav,3\n")
    message = r"line 2: 'a.wav' is the file of several pairs of this split; write .*'a.wav#1', 'a.w"
    with pytest.raises(SubmissionError, match=message):
        read_predictions(path, ids)


def test_ids_come_back_whatever_they_are(tmp_path: Path) -> None:
    ids = ("=1+1.wav", "-a.wav", "@b.wav", 'c "d", e.wav', " f.wav".strip(), "g\nh\ri.wav")
    write_predictions(tmp_path / "scores.csv", ids, range(6), "test")
    assert predicted_ids(tmp_path / "scores.csv") == ids
    assert read_predictions(tmp_path / "scores.csv", ids).tolist() == list(range(6))


def test_many_predictions_come_back_in_their_order(tmp_path: Path) -> None:
    ids = [f"{row}.wav" for row in range(5000)]  # of several blocks
    scores = np.arange(5000) / 500
    write_predictions(tmp_path / "p.csv", ids, scores, "test")
    np.testing.assert_allclose(read_predictions(tmp_path / "p.csv", ids), scores, atol=0.006)
    assert (tmp_path / "p.csv").read_text().count("\n") == 5001
