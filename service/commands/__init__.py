"""The commands of `reppose-serve`, one in each file, and what they share. What is heavy is imported when it is used."""
