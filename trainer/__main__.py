"""`python -m trainer` is `reppose-train`."""

from trainer.cli import main

main()
