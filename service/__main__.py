"""`python -m service` is `reppose-serve`."""

from service.cli import main

main()
