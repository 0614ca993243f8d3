"""Quantize a model while it loads, then talk to it: `python chat.py MODEL_DIR`.

MODEL_DIR may be packed already. Models without a chat template simply write on.
"""

import argparse

from flexq.transformers import FlexQConfig, coverage
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TextStreamer


def main() -> None:
    """Reads a line, writes an answer, until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--preset", default="linear", choices=["linear", "full"])
    parser.add_argument("--max-new-tokens", type=int, default=200)
    arguments = parser.parse_args()

    is_packed = hasattr(AutoConfig.from_pretrained(arguments.model), "quantization_config")
    settings = {} if is_packed else {"quantization_config": FlexQConfig(preset=arguments.preset)}
    model = AutoModelForCausalLM.from_pretrained(arguments.model, **settings)
    print(coverage(model))
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    messages = []
    while line := _ask():
        if tokenizer.chat_template is None:
            prompt = tokenizer(line, return_tensors="pt")
        else:
            messages.append({"role": "user", "content": line})
            prompt = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
        prompt = prompt.to(model.device)
        out = model.generate(**prompt, max_new_tokens=arguments.max_new_tokens, streamer=streamer)
        answer = tokenizer.decode(out[0, prompt.input_ids.shape[1] :], skip_special_tokens=True)
        messages.append({"role": "assistant", "content": answer})


def _ask() -> str:
    try:
        return input("> ")
    except EOFError:
        return ""


if __name__ == "__main__":
    main()
