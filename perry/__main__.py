"""Lets `python -m perry` be the `perry` command; it must know nothing else."""

from perry.cli.main import run

if __name__ == "__main__":
    run()
