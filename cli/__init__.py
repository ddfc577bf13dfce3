"""The facekd command line: parse, call one engine function, print."""
