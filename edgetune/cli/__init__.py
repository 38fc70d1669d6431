"""The command line: `app` finds the command, `options` makes its flags from the recipe, `output` prints, `errors` explains."""
