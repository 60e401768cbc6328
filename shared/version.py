"""The version of Trunkline; the package is built with it too."""

VERSION = "0.1.0"
