"""The command line: verbs that parse, call the engine, and show what came of it."""
