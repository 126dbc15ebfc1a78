"""The run folder: the one module that knows its files.

    runs/mine/
      config.yaml            settings as resolved
      manifest.json          versions, machine, seed, hashes of model and prompts
      inputs/                the prompts as they were read
      rounds/000/            the base pi_0 ... rounds/t/ is about pi_t
        files.json           what the round rests on: settings, versions of libraries, SHA-256 of
                             the model, the prompts and each file here; seconds by stage
        policy/              a Hugging Face folder (safetensors), or its adapters on the policy
                             before; srlm.json: the update's losses; README.md: a model card. Of
                             round 0, where the base is
        dropped.json         the weights that were not kept (--keep)
        held_out.parquet     held-out samples of pi_t
        prompts.parquet      what they and the search say, one row per held-out prompt
        round.json           the round's record: every estimate, losses, notes, rewards
        forecast.json        forecast of the rounds after it
        shards/              pieces of samples, search and judging that are there so far, by kind,
                             until all of a stage are
        samples.parquet      training samples of pi_t, one row per response
        rewards.json         what their rewards were like: missing, spread, length, ...
        pairs.parquet        groups made of them, from which pi_{t+1} is trained
      metrics.jsonl          the records of the rounds, one a line, with their times
      stop.json              why the run ended and its best round: --stop auto, or its time was up
      report.html
      progress.json          what the run is doing, for who watches it; gone when it has ended
      trackers.json          which rounds were reported where (--report-to)

Files and folders are written atomically (``srlm.writing``); a name without ``.partial`` is whole.
``RunFolder`` writes and locks a folder, and the same command on it continues after the last stage
that is complete; ``read_run`` reads it, also while it is being made. Other settings are refused,
but for the number of rounds and ``keep``: a finished run can be given more. So are another model
and other prompts; where they lie may change.

Every file is read only where its hash is the recorded one. What a run reads and finds damaged or
missing is made again from the last good stage; where that gives other bytes than those that later
stages rest on, the run is refused and says what to delete. A report names what is damaged and
shows the rest; ``check`` looks at every file but the last two, on which nothing rests. A run reads
neither policies nor samples of earlier rounds.
"""

from srlm.run_folder.folder import Folder, Memory, RunFolder
from srlm.run_folder.manifest import hash_model
from srlm.run_folder.reader import LARGE, Aim, Run, aim_of, read_run, sharpens
from srlm.run_folder.tables import write_prompt_table

__all__ = [
    "LARGE",
    "Aim",
    "Folder",
    "Memory",
    "Run",
    "RunFolder",
    "aim_of",
    "hash_model",
    "read_run",
    "sharpens",
    "write_prompt_table",
]
