"""Weights and products on a GPU, for its tests."""

import order
import torch
from flexq import _flexq

TYPES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2}
TOLERANCE = {torch.float16: 1e-3, torch.bfloat16: 6e-3, torch.float32: 3e-6}


class Weight:
    """Random codes and scales on the GPU, canonical and in device order."""

    def __init__(self, n, k, group, scale_type=torch.float16, q=None):
        self.n, self.k, self.group = n, k, group
        columns = group or k
        self.q = torch.randint(-32, 32, (n, k), dtype=torch.int8) if q is None else q
        self.scales = (torch.rand(n, -(-k // columns)) * 0.02 - 0.01).to(scale_type).cuda()
        self.packed = torch.from_numpy(order.pack(self.q.numpy())).cuda()
        code_bytes, scale_count = _flexq.cuda_sizes(n, k, group)
        self.codes = torch.full((code_bytes,), 255, dtype=torch.uint8, device="cuda")
        self.device_scales = torch.full((scale_count,), torch.nan, dtype=scale_type, device="cuda")
        self.raw = (
            self.codes.data_ptr(),
            self.device_scales.data_ptr(),
            TYPES[scale_type],
            n,
            k,
            group,
        )
        _flexq.cuda_repack(0, stream(), (self.packed.data_ptr(), self.scales.data_ptr()), self.raw)

    def dense(self):
        wide = self.scales.double().repeat_interleave(self.group or self.k, 1)[:, : self.k]
        return self.q.cuda().double() * wide


def stream():
    return torch.cuda.current_stream().cuda_stream


def linear(weight, x, out_type, act_bits=16, per_row=False, bias=None, kernel=None):
    y = torch.full((len(x), weight.n), torch.nan, dtype=out_type, device="cuda")
    raw_x = (x.data_ptr(), TYPES[x.dtype], len(x), x.stride(0))
    size, _ = _flexq.cuda_workspace(0, weight.raw, len(x), TYPES[x.dtype], act_bits, per_row)
    if kernel is not None:
        _, size = _flexq.cuda_choice(0, weight.raw, raw_x, act_bits, per_row, kernel)
    workspace = torch.full((size,), 255, dtype=torch.uint8, device="cuda")
    workspace[: 1 << 18] = 0  # counters; the rest may hold anything
    raw_bias = None if bias is None else (bias.data_ptr(), TYPES[bias.dtype])
    for _ in range(2):  # the second one finds the counters as the first one left them
        previous = y.clone()
        _flexq.cuda_linear(
            0,
            stream(),
            weight.raw,
            raw_x,
            raw_bias,
            (y.data_ptr(), TYPES[out_type]),
            act_bits,
            per_row,
            (workspace.data_ptr(), size),
            kernel,
        )
    torch.cuda.synchronize()
    assert torch.equal(y, previous), "two runs differ"
    return y


def launched(weight, x, act_bits, per_row, kernel, times):
    """Outputs, in single precision, of launches one after the other on the current stream."""
    raw_x = (x.data_ptr(), TYPES[x.dtype], len(x), x.stride(0))
    _, size = _flexq.cuda_choice(0, weight.raw, raw_x, act_bits, per_row, kernel)
    workspace = torch.zeros(size, dtype=torch.uint8, device="cuda")
    outputs = torch.full((times, len(x), weight.n), torch.nan, device="cuda")
    for y in outputs:
        raw_y = (y.data_ptr(), TYPES[y.dtype])
        space = (workspace.data_ptr(), size)
        _flexq.cuda_linear(
            0, stream(), weight.raw, raw_x, None, raw_y, act_bits, per_row, space, kernel
        )
    return list(outputs)


def quantized(x, limit, per_row):
    m, k = x.shape
    width = k if per_row else 128
    padded = torch.zeros(m, -(-k // width) * width, device="cuda")
    padded[:, :k] = x.float()
    blocks = padded.view(m, -1, width)
    # a division of tensors: by a number, torch multiplies with its inverse
    scale = blocks.abs().amax(-1, keepdim=True) / torch.full((1, 1, 1), limit, device="cuda")
    q = torch.where(scale > 0, blocks / scale, 0.0).round().clamp(-limit, limit)
    return (q.double() * scale.double()).view(m, -1)[:, :k]


def error(y, reference):
    return float((y.double() - reference).norm() / reference.norm())
