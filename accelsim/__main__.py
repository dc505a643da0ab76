"""`python -m accelsim` and `accelsim` are the command line."""

from accelsim.cli.interrupt import end_on_signals


def main() -> None:
    end_on_signals()  # before anything slow is imported
    from accelsim.cli.main import main

    main()


if __name__ == "__main__":
    main()
