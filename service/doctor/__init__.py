"""Whether the service could start and do well here: what `reppose-serve doctor` looks at."""
