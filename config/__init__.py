"""Every setting, path, log line format and error type of Salamander, in one place."""
