"""The supervisor: decides the calls that a policy escalates, by its rules or by a person, and makes them itself."""
