"""Q6_K as its format is described: super-blocks of 256 weights in 6.5625 bits each.

A super-block holds sixteen blocks of 16 weights, with 6-bit codes in -32..31, one int8 scale a
block and one half-precision factor for all: a weight is `factor * scale * code`. How a writer
finds them is its own affair; here each block's scale comes from a search over candidates
(like that of the `mse` rule, weights of least squared error), and is then rounded to a 127th
of the largest. It is an independent account in numpy, to be held against ggml's.
"""

import numpy as np

WIDTH, BLOCK = 256, 16
BITS = (WIDTH * 6 + WIDTH // BLOCK * 8 + 16) / WIDTH
STEPS = np.linspace(-9, 9, 19) / 10


def round_trip(w: np.ndarray) -> np.ndarray:
    """Float32 `w` of any shape, end to end in super-blocks, after quantization to Q6_K."""
    flat = np.ascontiguousarray(w, np.float32).ravel()
    padded = np.pad(flat, (0, -len(flat) % WIDTH))
    blocks = padded.reshape(-1, WIDTH // BLOCK, BLOCK)
    scales = _scales(blocks)
    largest = np.take_along_axis(scales, np.abs(scales).argmax(1, keepdims=True), 1)
    factor = (largest / -128).astype(np.float16).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        small = np.nan_to_num(np.clip(np.rint(scales / factor), -128, 127))
        steps = (factor * small)[..., None]
        codes = np.nan_to_num(np.clip(np.rint(blocks / steps), -32, 31))
    return (codes * steps).ravel()[: flat.size].reshape(w.shape).astype(np.float32)


def _scales(blocks: np.ndarray) -> np.ndarray:
    """The scale of least squared error for every block, among candidates with a refit each."""
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    best = np.zeros(largest.shape, np.float32)
    least = np.square(blocks).sum(-1, keepdims=True)
    for step in STEPS:
        with np.errstate(divide="ignore", invalid="ignore"):
            codes = np.nan_to_num(np.clip(np.rint(blocks * -(32 + step) / largest), -32, 31))
            power = np.square(codes).sum(-1, keepdims=True)
            scale = np.nan_to_num((blocks * codes).sum(-1, keepdims=True) / power)
        error = np.square(blocks - scale * codes).sum(-1, keepdims=True)
        best = np.where(error < least, scale, best)
        least = np.minimum(error, least)
    return best[..., 0]
