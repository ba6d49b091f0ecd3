"""Environment variables that the libraries below read. Set by a call, never at import.

This file imports no library, because some variables are read while PyTorch loads.
"""

from __future__ import annotations

import os

VARIABLES = {
    # GNU's OpenMP, while PyTorch loads: waiting threads release their core soon. Alone a training is as fast; beside
    # another program on two cores it was 1.3 to 4 times as fast (benchmarks/README.md).
    "GOMP_SPINCOUNT": "3000",
    # PyTorch and oneDNN, at the first bf16 product on a CPU: kernels kept for shapes seen, 1,024 by default. Batches whose
    # rows differ in length hardly repeat a shape: that took 3 GB instead of one and was no faster (benchmarks/README.md).
    "LRU_CACHE_CAPACITY": "64",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
}
DETERMINISTIC = {
    # cuBLAS, at the first product on CUDA: a fixed workspace, without which deterministic algorithms are refused.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}


def set_environment(deterministic: bool = False) -> None:
    """Set the variables that are not set already. The command line calls this before it imports PyTorch."""
    for name, value in (VARIABLES | (DETERMINISTIC if deterministic else {})).items():
        os.environ.setdefault(name, value)
