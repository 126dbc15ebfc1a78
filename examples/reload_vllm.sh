#!/usr/bin/env bash
# srlm run ... --engine server --server http://127.0.0.1:8000/v1 --reload "examples/reload_vllm.sh {policy}"
#
# Serves a policy's folder by vLLM in the old one's place, and returns when it answers or has ended.
# What follows the folder goes to vLLM (--dtype float32 --max-model-len 4096). `python` must have it.
# PLACE: folder for the log and the process's number. PORT.
set -eu
place=${PLACE:-.vllm} port=${PORT:-8000} policy=$1
shift
mkdir -p "$place"
if [ -f "$place/pid" ]; then
  old=$(cat "$place/pid")
  kill "$old" 2>/dev/null || true
  while kill -0 "$old" 2>/dev/null; do sleep 0.2; done
fi
nohup python -m vllm.entrypoints.openai.api_server --model "$policy" --served-model-name policy \
  --generation-config vllm --host 127.0.0.1 --port "$port" "$@" >"$place/server.log" 2>&1 </dev/null &
echo $! >"$place/pid"
until (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
  kill -0 $! 2>/dev/null || { tail -n 1 "$place/server.log" >&2; exit 1; }
  sleep 0.5
done
