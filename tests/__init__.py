"""The tests; a package, so that it is found before any that a dependency installs under the same name."""
