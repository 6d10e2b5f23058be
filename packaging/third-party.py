#!/usr/bin/env python3
"""Prints the licences and notices of every library that the program contains, which those licences
ask to come with it.

    third-party.py TARGET…    for builds for these targets
"""

import json
import pathlib
import re
import subprocess
import sys

NAMES = re.compile(r"(licen[cs]e|copying|notice|copyright|unlicense)", re.IGNORECASE)


def metadata(target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def contained(tree):
    """The packages that end in the program: not those of its build and its tests."""
    packages = {package["id"]: package for package in tree["packages"]}
    nodes = {node["id"]: node for node in tree["resolve"]["nodes"]}
    (root,) = (id for id, package in packages.items() if package["name"] == "rookery")
    seen, left = set(), [root]
    while left:
        id = left.pop()
        if id in seen:
            continue
        seen.add(id)
        for dep in nodes[id]["deps"]:
            is_macro = any("proc-macro" in target["kind"] for target in packages[dep["pkg"]]["targets"])
            if not is_macro and any(kind["kind"] is None for kind in dep["dep_kinds"]):
                left.append(dep["pkg"])
    # Those without a source are our own.
    return [packages[id] for id in seen if packages[id]["source"]]


def texts(package):
    """The files of a package that are about licences, wherever they are in it."""
    root = pathlib.Path(package["manifest_path"]).parent
    for path in sorted(root.rglob("*")):
        if path.is_file() and NAMES.match(path.name) and path.suffix.lower() in ("", ".md", ".txt", ".mit", ".apache"):
            yield path.relative_to(root), path.read_text(encoding="utf-8", errors="replace").strip()


def main():
    packages = {}
    for target in sys.argv[1:]:
        for package in contained(metadata(target)):
            packages[package["name"], package["version"]] = package
    print("Rookery contains these libraries. Each line is followed, below, by the texts that come with it.\n")
    for (name, version), package in sorted(packages.items()):
        print(f"{name} {version}: {package['license'] or 'see below'}")
    print("\nand the standard library of Rust (MIT OR Apache-2.0) and musl (MIT).")
    # One text for all that share it.
    owners = {}
    for (name, version), package in sorted(packages.items()):
        for path, text in texts(package):
            owners.setdefault(text, []).append(f"{name} {version}: {path}")
    for text, names in owners.items():
        print("\n" + "=" * 100)
        print("\n".join(names))
        print("-" * 100)
        print(text)


main()
