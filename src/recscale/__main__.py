"""`python -m recscale VERB`, the same as the command `recscale`."""

from recscale.cli.main import main

if __name__ == "__main__":
    main()
