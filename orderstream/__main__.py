"""`python -m orderstream`: the command line, also where its script is not on the PATH."""

from orderstream.cli import main

if __name__ == "__main__":
    main()
