"""Load a packed model and write on: `python load.py PACKED_DIR "Once upon a time"`."""

import sys

import flexq.transformers
from transformers import AutoTokenizer

model = flexq.transformers.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
prompt = tokenizer(sys.argv[2], return_tensors="pt").to(model.device)
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=60, do_sample=False)[0]))
