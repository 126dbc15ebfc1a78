"""Self-rewards: plain functions from (policy, prompts, samples) to a number a row."""
