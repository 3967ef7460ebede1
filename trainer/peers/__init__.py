"""Other people's nets, each a program of its own: they need packages that do not go together with ours."""
