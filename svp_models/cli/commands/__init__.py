"""One module for each svp command: add_arguments(parser) and run(args, host)."""
