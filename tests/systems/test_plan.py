import numpy as np
import pytest

from xacle_stack._optional import stand_ins
from xacle_stack.errors import StackingError
from xacle_stack.systems.plan import TrainingPlan, learning_rate_at


def test_the_cosine_is_timms() -> None:
    torch = pytest.importorskip("torch")
    with stand_ins(["torchvision"]):
        scheduler = pytest.importorskip("timm.scheduler")
    plan = TrainingPlan(20, 16, 3e-4, warmup_epochs=5, final_learning_rate=1e-7)
    optimizer = torch.optim.SGD([torch.zeros(1)], plan.learning_rate)
    timms = scheduler.CosineLRScheduler(optimizer, 20, lr_min=1e-7, warmup_t=5, warmup_lr_init=0)
    for epoch in np.linspace(0, 19.9, 57):
        timms.step(float(epoch))
        rate = optimizer.param_groups[0]["lr"]
        assert learning_rate_at(plan, float(epoch)) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, r"epochs .*got 0\b"),
        ({"batch_size": 2.5}, "batch_size .*got 2.5"),
        ({"plateau_patience": -1}, "plateau_patience .*got -1"),
        ({"weight_decay": -1e-4}, "weight_decay .*got -0.0001"),
        ({"weight_decay": True}, "weight_decay .*got True"),
        ({"warmup_epochs": -1}, "warmup_epochs .*got -1"),
        ({"final_learning_rate": np.nan}, "final_learning_rate .*got nan"),
        ({"patience": 0}, r"patience .*got 0\b"),
        ({"learning_rate": -1.0}, "learning_rate .*above 0, got -1.0"),
        ({"optimizer": "sgd"}, r"optimizer .*\['lars', 'adam', 'adamw'\].* 'sgd'"),
        ({"schedule": "step"}, r"schedule .*\['cosine', 'cosine-by-epoch', 'plateau'\].* 'step'"),
    ],
)
def test_settings_are_checked(settings, message: str) -> None:
    with pytest.raises(StackingError, match=message):
        TrainingPlan(**{"epochs": 1, "batch_size": 1, "learning_rate": 1e-3, **settings})
