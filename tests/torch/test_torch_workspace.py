"""Whose turn it is with a GPU's workspace, on streams that note what is asked of them."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="the torch extra is not installed")

from flexq.torch import workspace  # noqa: E402


class Stream:
    def __init__(self, handle: int, events: list) -> None:
        self.cuda_stream, self.events, self.capturing = handle, events, False

    def wait_stream(self, other: "Stream") -> None:
        self.events.append((self.cuda_stream, other.cuda_stream))


class Gpu:
    """As much of `torch.cuda` as a workspace asks for."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int]] = []
        self.streams = [Stream(handle, self.events) for handle in range(3)]
        self.current = self.streams[0]

    @contextmanager
    def stream(self, stream: Stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextmanager
    def device(self, ordinal: int):
        yield

    def current_stream(self) -> Stream:
        return self.current

    def current_device(self) -> int:
        return 0

    def is_current_stream_capturing(self) -> bool:
        return self.current.capturing


@pytest.fixture
def gpu(monkeypatch):
    gpu = Gpu()
    monkeypatch.setattr(workspace, "cuda", gpu)
    monkeypatch.setattr(workspace, "_held", {})
    monkeypatch.setattr(workspace, "_last", {})
    zeros = torch.zeros
    monkeypatch.setattr(
        workspace, "torch", SimpleNamespace(uint8=torch.uint8, zeros=lambda n, **_: zeros(n))
    )
    return gpu


def product(gpu: Gpu, stream: int, size: int = 1) -> int:
    with gpu.stream(gpu.streams[stream]), workspace.lock:
        return workspace.of(0, stream, size)[0]


def test_a_product_waits_for_those_of_other_streams(gpu):
    addresses = {product(gpu, stream) for stream in (0, 0, 1, 1, 0, 2)}
    assert len(addresses) == 1
    assert gpu.events == [(1, 0), (0, 1), (2, 0)]


def test_gpus_do_not_wait_for_each_other(gpu):
    with workspace.lock:
        first = workspace.of(0, 0, 1)
        with gpu.stream(gpu.streams[1]):
            assert workspace.of(1, 1, 1) != first
    assert gpu.events == []


def test_what_is_reserved_is_waited_for(gpu):
    workspace.reserve(torch.device("cuda", 0), 1)
    product(gpu, 1)
    assert gpu.events == [(1, 0)]


def test_captures_neither_wait_nor_are_waited_for(gpu):
    product(gpu, 0)
    gpu.streams[1].capturing = True
    product(gpu, 1)
    product(gpu, 2)
    gpu.streams[2].capturing = True
    product(gpu, 0)
    assert gpu.events == [(2, 0)]


def test_it_grows_but_not_amid_a_capture(gpu):
    small = product(gpu, 0, 10)
    large = product(gpu, 0, workspace.LEAST + 1)
    assert small != large == product(gpu, 0, 10)
    gpu.streams[0].capturing = True
    assert product(gpu, 0, workspace.LEAST) == large
    with pytest.raises(RuntimeError, match=r"workspace of \d+ bytes.*prepare"):
        product(gpu, 0, 3 * workspace.LEAST)
    assert not workspace.lock.locked()
