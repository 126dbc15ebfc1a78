"""What is true of a policy: its modes with certificates, kappa, and what each round reports."""
