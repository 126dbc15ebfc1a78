"""From a process's start to a model's first token, by stage; benchmarks/start_up.py runs it.

python benchmarks/first_token.py FOLDER PROMPT TIME-OF-START
"""

import sys
import time
from itertools import pairwise

marks = [float(sys.argv[3]), time.time()]

import torch  # noqa: E402, F401
import transformers  # noqa: E402

marks.append(time.time())

import srlm.probe  # noqa: E402, F401
from srlm.data import prompt_id  # noqa: E402
from srlm.policies.load import load  # noqa: E402
from srlm.types import Prompt  # noqa: E402

marks.append(time.time())
transformers.AutoModelForCausalLM  # noqa: B018
marks.append(time.time())
policy = load(sys.argv[1])
marks.append(time.time())
policy.sample([Prompt(prompt_id(sys.argv[2]), sys.argv[2])], 1, seed=0, max_tokens=1)
marks.append(time.time())
print([b - a for a, b in pairwise(marks)])
