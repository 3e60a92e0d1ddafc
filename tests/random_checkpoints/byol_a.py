"""BYOL-A v2: the file of weights, and a stand-in for the clone of its code.

The stand-in is code of our own with the interface and the names of the parameters of the real one.
There is no smaller size: the network's widths are fixed.
"""

from pathlib import Path

NAME = "AudioNTT2022-BYOLA-64x96d2048.pth"

MODELS = """
from torch import cat, nn

print("imported")


class AudioNTT2022Encoder(nn.Module):
    def __init__(self, n_mels, d=3072, base_d=64, mlp_hidden_d=2048, conv_layers=2, stack=True):
        super().__init__()
        blocks = []
        for n_channels in [1, base_d, base_d, base_d][:conv_layers]:
            convolution = nn.Conv2d(n_channels, base_d, kernel_size=3, padding=1)
            blocks += [convolution, nn.BatchNorm2d(base_d), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*blocks)
        width = base_d * n_mels // 2**conv_layers
        first, last = nn.Linear(width, mlp_hidden_d), nn.Linear(mlp_hidden_d, d - width)
        self.fc = nn.Sequential(first, nn.ReLU(), nn.Dropout(0.3), last, nn.ReLU())

    def forward(self, x):
        assert x.shape[1:3] == (1, 64)
        x = self.features(x).permute(0, 3, 2, 1).flatten(2)
        return cat([x, self.fc(x)], dim=2)


class AudioNTT2022(AudioNTT2022Encoder):
    def forward(self, x):
        x = super().forward(x)
        return x.amax(dim=1) + x.mean(dim=1)
"""


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    """Write the file of weights, and the stand-in clone beside it, called ``byol-a``."""
    import torch

    namespace: dict[str, type] = {}
    exec(MODELS.replace('print("imported")', ""), namespace)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = namespace["AudioNTT2022"](n_mels=64)
        for name, values in model.named_buffers():
            if name.endswith("running_var"):
                values.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                values.normal_(0, 0.1)
            else:  # how many batches there were in training
                values.fill_(1000)
    root.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), root / NAME)
    write_code(root / "byol-a")
    return root / NAME


def write_code(folder: Path) -> None:
    """Write the stand-in clone: what --code would name."""
    (folder / "v2" / "byol_a2").mkdir(parents=True, exist_ok=True)
    (folder / "v2" / "byol_a2" / "models.py").write_text(MODELS)
