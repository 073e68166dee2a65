"""Reads a topology in containerlab's format and finds everything that is wrong with it, before anything is made.

What is checked: containerlab's own JSON schema where it is at hand; what that schema lets through; and that netlab knows how to do all
that the file asks for.
"""

import dataclasses
import json
import os
import pathlib
import re

import yaml

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# The only image that netlab can stand in for: the folder containerlab/image, which becomes /opt/kedge.
IMAGE = "kedge-node"
# Folders of a node that are its own; binds go there.
PRIVATE_FOLDERS = ("/etc", "/opt", "/var/lib", "/var/log")
LONGEST_INTERFACE_NAME = 15
# What containerlab/make-pki makes; `netlab up` runs it.
PKI_FOLDER = REPOSITORY / "containerlab" / "pki"

TOP_KEYS = {"name", "prefix", "mgmt", "topology"}
TOPOLOGY_KEYS = {"nodes", "links", "kinds", "defaults"}
NODE_KEYS = {"kind", "image", "binds", "env", "exec", "network-mode", "labels", "stages"}
LINK_KEYS = {"endpoints", "mtu"}


class TopologyError(Exception):
    """What is wrong with a topology: one text for each problem."""

    def __init__(self, problems):
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclasses.dataclass
class Bind:
    source: pathlib.Path
    target: str
    read_only: bool


@dataclasses.dataclass
class Node:
    name: str
    env: dict
    binds: list
    exec: list
    # Names of the nodes that are started before this one.
    after: list


@dataclasses.dataclass
class Link:
    # Two pairs of node name and interface name.
    ends: tuple
    mtu: int


@dataclasses.dataclass
class Topology:
    file: pathlib.Path
    name: str
    nodes: dict
    links: list
    notes: list


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a key stand twice and takes the last one; in a topology that is a mistake."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def find_file(path):
    """The topology file meant by a file or a folder that holds one."""
    path = pathlib.Path(path)
    if path.is_file():
        return path.resolve()
    if not path.is_dir():
        raise TopologyError([f"{path}: no such file or folder"])
    files = sorted([*path.glob("*.clab.yml"), *path.glob("*.clab.yaml")])
    if len(files) != 1:
        raise TopologyError([f"{path}: holds {len(files)} files named *.clab.yml; name one of them" if files else f"{path}: holds no *.clab.yml"])
    return files[0].resolve()


def schema_file():
    """Containerlab's schema: CLAB_SCHEMA, or clab.schema.json in the folder `shared` beside the repository; None when absent."""
    path = pathlib.Path(os.environ.get("CLAB_SCHEMA") or REPOSITORY.parent / "shared" / "clab.schema.json")
    return path if path.is_file() else None


def _schema_problems(data, path):
    import jsonschema  # Takes long to load; only needed here.

    # ECMAScript's classes of letters and numbers are unknown to Python, whose \w has them all.
    schema = json.loads(path.read_text(encoding="utf-8").replace(r"[\\p{N}\\p{L}]", r"\\w"))
    validator = jsonschema.validators.validator_for(schema)(schema)
    problems = []
    for error in sorted(validator.iter_errors(data), key=lambda e: [str(step) for step in e.absolute_path]):
        while error.context:
            # The branch of a oneOf that came furthest says best what is wrong.
            error = max(error.context, key=lambda e: len(e.absolute_path))
        where = ".".join(str(step) for step in error.absolute_path) or "top level"
        problems.append(f"schema: {where}: {error.message}")
    return problems


class _Checker:
    """Goes through the file once, collecting problems and the topology."""

    def __init__(self, file, data):
        self.file = file
        self.data = data
        self.problems = []
        self.notes = []

    def problem(self, text):
        self.problems.append(text)

    def mapping(self, value, where):
        if value is None:
            return {}
        if isinstance(value, dict):
            return value
        self.problem(f"{where}: must be a mapping")
        return {}

    def items(self, value, where):
        if value is None:
            return []
        if isinstance(value, list):
            return value
        self.problem(f"{where}: must be a list")
        return []

    def unknown_keys(self, mapping, known, where):
        for key in mapping:
            if key not in known:
                self.problem(f"{where}: netlab does not implement '{key}'")

    def topology(self):
        data = self.mapping(self.data, "top level")
        self.unknown_keys(data, TOP_KEYS, "top level")
        if "mgmt" in data:
            self.notes.append("mgmt: ignored, netlab makes no management network")
        name = data.get("name")
        if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._-]*", name):
            self.problem("name: must be a word of letters, digits, '-', '.' and '_'")
            name = "invalid"
        body = self.mapping(data.get("topology"), "topology")
        self.unknown_keys(body, TOPOLOGY_KEYS, "topology")
        defaults = self.mapping(body.get("defaults"), "topology.defaults")
        kinds = self.mapping(body.get("kinds"), "topology.kinds")
        definitions = self.mapping(body.get("nodes"), "topology.nodes")
        if not definitions:
            self.problem("topology.nodes: there is no node")
        nodes = {
            node_name: self.node(str(node_name), self.mapping(own, f"node {node_name}"), defaults, kinds)
            for node_name, own in definitions.items()
        }
        self.circular_waits(definitions)
        links = self.links(self.items(body.get("links"), "topology.links"), nodes)
        return Topology(self.file, name, nodes, links, self.notes)

    def node(self, name, own, defaults, kinds):
        where = f"node {name}"
        kind = own.get("kind", defaults.get("kind"))
        layers = [defaults, self.mapping(kinds.get(kind), f"kind {kind}"), own]
        merged = {key: value for layer in layers for key, value in layer.items()}
        self.unknown_keys(merged, NODE_KEYS, where)
        if kind != "linux":
            self.problem(f"{where}: netlab implements kind linux only, not {kind}")
        image = merged.get("image")
        if not isinstance(image, str) or image.split(":")[0] != IMAGE:
            self.problem(f"{where}: netlab stands in for image {IMAGE} only, not {image}")
        if merged.get("network-mode") != "none":
            self.notes.append(f"{where}: netlab makes no management network; containerlab would, without 'network-mode: none'")
        env = {str(key): str(value) for layer in layers for key, value in self.mapping(layer.get("env"), f"{where}: env").items()}
        binds = [self.bind(where, text) for layer in layers for text in self.items(layer.get("binds"), f"{where}: binds")]
        commands = [str(command) for layer in layers for command in self.items(layer.get("exec"), f"{where}: exec")]
        return Node(name, env, [bind for bind in binds if bind], commands, self.after(where, merged))

    def bind(self, where, text):
        parts = str(text).split(":")
        if len(parts) not in (2, 3) or not all(parts[:2]) or parts[2:] not in ([], ["ro"], ["rw"]):
            self.problem(f"{where}: bind '{text}' must be SOURCE:TARGET or SOURCE:TARGET:ro")
            return None
        source = (self.file.parent / pathlib.Path(parts[0]).expanduser()).resolve()
        target = os.path.normpath(parts[1])
        if not source.exists() and PKI_FOLDER in source.parents:
            note = "containerlab/pki is made by netlab up; for containerlab run containerlab/make-pki as root"
            if note not in self.notes:
                self.notes.append(note)
        elif not source.exists():
            self.problem(f"{where}: bind '{text}': {source} does not exist")
            return None
        if not any(target.startswith(folder + "/") for folder in PRIVATE_FOLDERS):
            self.problem(f"{where}: bind '{text}': netlab can bind only below {', '.join(PRIVATE_FOLDERS)}")
            return None
        return Bind(source, target, parts[2:] == ["ro"])

    def waits(self, name, definition):
        """Triples (stage, node waited for, its stage) of one node."""
        if not isinstance(definition, dict):
            return []
        where = f"node {name}: stages"
        found = []
        for stage, content in self.mapping(definition.get("stages"), where).items():
            for wait in self.items(self.mapping(content, f"{where}.{stage}").get("wait-for"), f"{where}.{stage}.wait-for"):
                wait = self.mapping(wait, f"{where}.{stage}.wait-for")
                found.append((str(stage), str(wait.get("node")), str(wait.get("stage"))))
        return found

    def after(self, where, merged):
        stages = self.mapping(merged.get("stages"), f"{where}: stages")
        for stage, content in stages.items():
            if isinstance(content, dict) and "exec" in content:
                self.problem(f"{where}: netlab does not implement 'exec' of stage {stage}; use the node's own 'exec'")
        after = []
        for stage, other, other_stage in self.waits(where.removeprefix("node "), merged):
            if (stage, other_stage) != ("create", "create"):
                self.problem(f"{where}: netlab implements waiting with stage create for stage create only, not {stage} for {other_stage}")
            after.append(other)
        return after

    def circular_waits(self, definitions):
        waited_for = {}
        for name, definition in definitions.items():
            others = [other for _, other, _ in self.waits(name, definition)]
            for other in others:
                if other not in definitions:
                    self.problem(f"node {name}: waits for node {other}, which does not exist")
            waited_for[name] = [other for other in others if other in definitions]
        done = set()

        def visit(name, path):
            if name in path:
                circle = path[path.index(name):] + [name]
                self.problem(f"circular wait: {' waits for '.join(circle)}")
                done.update(circle)
            elif name not in done:
                for other in waited_for[name]:
                    visit(other, path + [name])
                done.add(name)

        for name in waited_for:
            visit(name, [])

    def links(self, definitions, nodes):
        links = []
        used = {}
        for number, definition in enumerate(definitions, 1):
            where = f"link {number}"
            definition = self.mapping(definition, where)
            self.unknown_keys(definition, LINK_KEYS, where)
            endpoints = self.items(definition.get("endpoints"), f"{where}: endpoints")
            if len(endpoints) != 2:
                self.problem(f"{where}: must have 2 endpoints, not {len(endpoints)}")
            ends = tuple(end for end in (self.endpoint(where, endpoint, nodes) for endpoint in endpoints) if end)
            for end in ends:
                if end in used:
                    self.problem(f"{where}: {':'.join(end)} is used twice, first by link {used[end]}")
                used.setdefault(end, number)
            mtu = definition.get("mtu", 1500)
            if not isinstance(mtu, int) or not 1280 <= mtu <= 65535:
                self.problem(f"{where}: mtu must be a number from 1280 (the least that IPv6 allows) to 65535, not {mtu}")
                mtu = 1500
            links.append(Link(ends, mtu))
        return links

    def endpoint(self, where, endpoint, nodes):
        """(node, interface), or None when it is no such pair."""
        parts = endpoint.split(":") if isinstance(endpoint, str) else []
        if len(parts) != 2 or not all(re.fullmatch(r"[^\s/]+", part) for part in parts):
            self.problem(f"{where}: endpoint '{endpoint}' must be written \"NODE:INTERFACE\"")
            return None
        node, interface = parts
        if node not in nodes:
            self.problem(f"{where}: endpoint '{endpoint}': there is no node {node}")
        if interface == "eth0":
            self.problem(f"{where}: endpoint '{endpoint}': eth0 is the management interface; links begin with eth1")
        if interface in ("lo", ".", ".."):
            self.problem(f"{where}: endpoint '{endpoint}': {interface} cannot be the name of a link's interface")
        if len(interface) > LONGEST_INTERFACE_NAME:
            self.problem(
                f"{where}: endpoint '{endpoint}': an interface's name has at most {LONGEST_INTERFACE_NAME} characters, not {len(interface)}"
            )
        return node, interface


def load(path):
    """The Topology in a file or folder. Raises TopologyError with all that is wrong."""
    file = find_file(path)
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise TopologyError([f"{file}: cannot be read as YAML: {error}"]) from error
    checker = _Checker(file, data)
    topology = checker.topology()
    schema = schema_file()
    problems = checker.problems
    if schema:
        problems = _schema_problems(data, schema) + problems
    else:
        topology.notes.append(
            "containerlab's schema is not at hand, so only netlab's own checks were made; set CLAB_SCHEMA to its clab.schema.json"
        )
    if problems:
        raise TopologyError([f"{file.name}: {problem}" for problem in problems])
    return topology
