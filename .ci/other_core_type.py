"""Print a core type of OpenBLAS that this machine can run and that is not its own."""

import platform

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_info

np.ones(2) @ np.ones(2), scipy.linalg.norm([1.0])  # both have a BLAS of their own
pools = threadpool_info()
own = {pool["architecture"].lower() for pool in pools if pool["internal_api"] == "openblas"}
if platform.machine().lower() in {"arm64", "aarch64"}:
    candidates = ["ARMV8", "NEOVERSEN1"]
elif own & {"skylakex", "cooperlake", "sapphirerapids"}:
    candidates = ["Haswell"]  # AVX2 instead of AVX-512
else:
    candidates = ["Nehalem"]  # SSE4 instead of AVX2
print(next(name for name in candidates if name.lower() not in own))
