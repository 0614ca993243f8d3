"""Device order of packed weights in NumPy: the oracle for the repacking kernel.

Written from the description in `kernels/include/flexq/layout.cuh`, index by index, and shared
with no implementation.
"""

from __future__ import annotations

import numpy as np

TILE_ROWS, TILE_COLS, BLOCK_ROWS = 64, 128, 16
BLOCK_WORDS = 384


def padded(n: int, k: int) -> tuple[int, int]:
    """N and K rounded up to whole tiles."""
    return -(-n // TILE_ROWS) * TILE_ROWS, -(-k // TILE_COLS) * TILE_COLS


def device_order(q: np.ndarray) -> np.ndarray:
    """Codes `q [N, K]` in -32..31 as 32-bit words in device order."""
    n, k = q.shape
    n_pad, k_pad = padded(n, k)
    u = np.full((n_pad, k_pad), 32, np.uint32)
    u[:n, :k] = q.astype(np.int64) + 32
    # [n64][strip][row bit 3][g] x [kb][quad][s][high][t][low]
    u = u.reshape(n_pad // 64, 4, 2, 8, k_pad // 128, 4, 2, 2, 4, 2)
    # -> [n64][kb][strip][g][t][quad][s][h] and byte i = 2 high + low
    byte = u.transpose(0, 4, 1, 3, 8, 5, 6, 2, 7, 9).reshape(-1, 32, 4, 4, 4)
    last = byte[:, :, :, 3]
    words = np.empty((len(byte), 32, 4, 3), np.uint32)
    for i, shift in enumerate((4, 2, 0)):
        lanes = byte[:, :, :, i] << 2 | (last >> shift) & 3
        words[..., i] = (lanes << np.array([0, 8, 16, 24], np.uint32)).sum(-1, dtype=np.uint32)
    # twelve words of a lane, in three chunks of four words a lane
    return words.reshape(-1, 32, 3, 4).transpose(0, 2, 1, 3).reshape(-1)


def device_scales(scales: np.ndarray, k: int, group: int, segment: int) -> np.ndarray:
    """Scales `[N, groups]` as `[Kpad / segment, Npad]`, zero in the padding."""
    n = scales.shape[0]
    n_pad, k_pad = padded(n, k)
    out = np.zeros((k_pad // segment, n_pad), scales.dtype)
    for s in range(-(-k // segment)):
        out[s, :n] = scales[:, s * segment // group]
    return out


def pack(q: np.ndarray) -> np.ndarray:
    """Codes `[N, K]` as canonical bytes `[N, ceil(6 K / 8)]`, lowest bits first."""
    u = (q.astype(np.int64) + 32).astype(np.uint8)
    bits = (u[..., None] >> np.arange(6, dtype=np.uint8)) & 1
    return np.packbits(bits.reshape(len(q), -1), axis=1, bitorder="little")
