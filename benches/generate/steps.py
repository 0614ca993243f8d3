"""What is timed: the reading of a prompt, and a decode step, ready to be called."""

import contextlib
import time
from collections.abc import Callable, Iterator

import torch
from transformers import DynamicCache, StaticCache

PROMPT, OUTPUT = 128, 1024
TOLERANCE = 0.5
"""Of logits: compiled models round in other places, layers of random weights amplify that, and a
token may get another expert. Wrong products differ by more than 1."""

MODES = ("plain", "compiled", "dependent")
"""As transformers runs a model; compiled whole, as `generate` does with a static cache; and that
with kernels of Inductor launched as dependents of the ones before (`TORCHINDUCTOR_ENABLE_PDL`)."""


@contextlib.contextmanager
def compiler(mode: str) -> Iterator[None]:
    """Sets Inductor up for one of `MODES`, while models are compiled."""
    from torch._inductor import config

    torch.compiler.reset()
    with config.patch({"triton.enable_pdl": mode == "dependent"}):
        yield


def forward_of(model, mode: str) -> Callable:
    """The forward pass of a model in one of `MODES`."""
    return model if mode == "plain" else torch.compile(model, fullgraph=True, dynamic=False)


class Prefill:
    """Reads one prompt of so many tokens, without a cache."""

    @torch.no_grad()
    def __init__(self, model, tokens: int, device: str, mode: str) -> None:
        self.known: dict = {}
        self.prompt = torch.randint(0, 1000, (1, tokens), device=device)
        self.forward = forward_of(model, mode)
        for _ in range(2):
            self.call()

    def rewind(self) -> None:
        """Nothing is kept."""

    @torch.no_grad()
    def call(self) -> None:
        """Reads it."""
        self.forward(self.prompt, use_cache=False, logits_to_keep=1)


class Generate:
    """What a user calls: `generate`, of so many tokens after a prompt of `PROMPT`, greedily.

    With a static cache transformers compiles a step by itself and records it as CUDA graphs.
    """

    def __init__(self, model, tokens: int, device: str, mode: str) -> None:
        self.known: dict = {}
        self.model = model
        self.prompt = torch.randint(0, 1000, (1, PROMPT), device=device)
        self.settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        if mode != "plain":
            self.settings["cache_implementation"] = "static"
        for _ in range(3):
            self.call()

    def rewind(self) -> None:
        """Nothing is kept."""

    def call(self) -> None:
        """Generates."""
        self.model.generate(self.prompt, pad_token_id=0, **self.settings)


class Decode:
    """One step after a prompt of `PROMPT` tokens, on a GPU a CUDA graph if it can be recorded.

    Args:
        cache: that of another step of the model at this batch, to use in turn.

    Attributes:
        known: whether there is a graph, and how far its logits are from those of a plain call.
        call: does the step.
        logits: what a recorded step fills, `[batch, 1, vocabulary]`.
    """

    @torch.no_grad()
    def __init__(
        self, model, batch: int, device: str, mode: str, cache: StaticCache | None = None
    ) -> None:
        generator = torch.Generator(device).manual_seed(batch)
        prompt = torch.randint(0, 1000, (batch, PROMPT), device=device, generator=generator)
        if cache is not None:
            cache.reset()
        elif device == "cuda":
            cache = StaticCache(config=model.config, max_cache_len=PROMPT + OUTPUT)
        else:
            cache = DynamicCache(config=model.config)
        self.cache = cache
        out = model(prompt, past_key_values=self.cache, logits_to_keep=1)
        self.first = out.logits.argmax(-1)
        self.token = self.first.clone()
        self.position = torch.full((1, 1), PROMPT, device=device)
        expected = self._step(model)
        forward = forward_of(model, mode)
        for _ in range(2):
            self._step(forward)
        self.call, self.known = lambda: self._step(forward), {"graph": "no"}
        if device == "cpu":
            return
        recorded = record(self.call)
        if recorded:
            self.call, self.logits = recorded
            self.logits.fill_(torch.nan)
        self.rewind()
        found = self.call()
        error = float(((self.logits if recorded else found) - expected).norm() / expected.norm())
        assert error < TOLERANCE, f"differs from a plain call by {error:.1e}"
        self.known = {"graph": "yes" if recorded else "no", "difference": round(error, 4)}

    @torch.no_grad()
    def _step(self, forward: Callable) -> torch.Tensor:
        out = forward(self.token, past_key_values=self.cache, position_ids=self.position)
        return out.logits

    def rewind(self) -> None:
        """Goes back to where the prompt ends; a cache that grows keeps what it has."""
        if isinstance(self.cache, DynamicCache):
            return
        for layer in self.cache.layers:
            layer.cumulative_length.fill_(PROMPT)
        self.position.fill_(PROMPT)
        self.token.copy_(self.first)

    @torch.no_grad()
    def generate(self, lengths: list[int]) -> tuple[torch.Tensor, dict[int, float]]:
        """Chooses tokens greedily by replaying the graph.

        Returns:
            The tokens, `[batch, longest]`, and the seconds after which each length was reached.
        """
        self.rewind()
        tokens, seconds = [self.first.clone()], {}
        torch.cuda.synchronize()
        start = time.perf_counter()
        for count in range(2, max(lengths) + 1):
            self.call()
            torch.argmax(self.logits[:, -1:], -1, out=self.token)
            self.position.add_(1)
            tokens.append(self.token.clone())
            if count in lengths:
                torch.cuda.synchronize()
                seconds[count] = time.perf_counter() - start
        return torch.cat(tokens, 1), seconds


def record(step: Callable[[], torch.Tensor]) -> tuple[Callable, torch.Tensor] | None:
    """A call that replays `step` as a CUDA graph, and what it fills, if it can be recorded."""
    try:
        stream = torch.cuda.Stream()
        # steps that were only asked for so far write the same cache
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # thread_local: the thread that watches over NCCL asks the driver while this one records
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            out = step()
    except RuntimeError as error:
        torch.cuda.synchronize()
        print("no graph:", first_line(error))
        return None
    return graph.replay, out


def first_line(error: Exception) -> str:
    """Kind and message of an error, without the explanations that follow."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
