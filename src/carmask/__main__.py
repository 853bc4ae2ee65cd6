"""`python -m carmask`."""

from carmask.cli import main

main()
