"""The configuration: the environment, secret files and wg-quick files become one `Config`.

`assemble.load` reads everything and reports every problem at once; `reading` has that done by a
child process. `early` has what is needed even when the rest is wrong. This package is the only
reader of the environment.
"""
