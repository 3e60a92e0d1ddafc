import numpy as np
import pytest
from torchaudio_kaldi import load_kaldi

from xacle_stack._optional import stand_ins
from xacle_stack.encoders.kaldi import count_frames, count_samples, kaldi_fbank

torch = pytest.importorskip("torch")


def sounds():
    rng = np.random.default_rng(0)
    time = np.arange(16_000) / 16_000
    return torch.from_numpy(
        np.stack(
            [
                0.1 * rng.normal(size=len(time)),
                0.01 * rng.normal(size=len(time)) + 0.5,
                1e-5 * rng.normal(size=len(time)),
                0.5 * np.sin(2 * np.pi * 440 * time),
                0.3 * np.sin(2 * np.pi * 3000 * time**2),
                rng.normal(size=len(time)) * (time > 0.4),
            ]
        ).astype(np.float32)
    )


@pytest.mark.parametrize("window", ["povey", "hanning"])
@pytest.mark.parametrize("scale", [1, 2**15])
@pytest.mark.parametrize("n_mels", [128, 23])
def test_it_is_torchaudios(window, scale, n_mels):
    kaldi = load_kaldi()
    clips = scale * sounds()
    expected = [
        kaldi.fbank(clip[None], num_mel_bins=n_mels, window_type=window, htk_compat=True)
        for clip in clips
    ]
    found = kaldi_fbank(clips, n_mels, window)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")  # Kaldi's has too
def test_it_agrees_with_transformers():
    with stand_ins(["torchaudio", "torchvision"]):
        audio_utils = pytest.importorskip("transformers.audio_utils")
    filters = audio_utils.mel_filter_bank(
        num_frequency_bins=257,
        num_mel_filters=128,
        min_frequency=20,
        max_frequency=8000,
        sampling_rate=16_000,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    clips = 2**15 * sounds()[:3]
    for clip, found in zip(clips, kaldi_fbank(clips), strict=True):
        expected = audio_utils.spectrogram(
            clip.numpy(),
            audio_utils.window_function(400, "povey", periodic=False),
            frame_length=400,
            hop_length=160,
            fft_length=512,
            power=2.0,
            center=False,
            preemphasis=0.97,
            mel_filters=filters,
            log_mel="log",
            mel_floor=1.192092955078125e-07,
            remove_dc_offset=True,
        )
        np.testing.assert_allclose(found, expected.T, atol=1e-3)


def test_alone_equals_together_to_the_bit():
    clips = sounds()
    together = kaldi_fbank(clips)
    for clip, expected in zip(clips, together, strict=True):
        torch.testing.assert_close(kaldi_fbank(clip[None])[0], expected, atol=0, rtol=0)


def test_a_short_clip_is_filled_with_zeros_to_one_frame():
    clip = sounds()[:1, :399]
    filled = torch.nn.functional.pad(clip, (0, 1))
    torch.testing.assert_close(kaldi_fbank(clip), kaldi_fbank(filled), atol=0, rtol=0)
    assert kaldi_fbank(clip[:, :1]).shape == (1, 1, 128)


def test_silence_is_the_floor():
    expected = torch.full((1, 3, 128), torch.finfo(torch.float32).eps).log()
    torch.testing.assert_close(kaldi_fbank(torch.zeros(1, 720)), expected)


@pytest.mark.parametrize("n_frames", [1, 2, 16, 1024])
def test_frames_are_counted(n_frames):
    n_samples = count_samples(n_frames)
    assert kaldi_fbank(torch.zeros(1, n_samples)).shape[1] == n_frames
    assert [count_frames(n_samples + extra) for extra in (0, 159, 160)] == [
        n_frames,
        n_frames,
        n_frames + 1,
    ]
