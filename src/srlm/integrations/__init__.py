"""srlm's rewards and instruments inside other trainers: TRL, verl, verifiers."""
