"""Pairs of labelled brains and their overlap, for the scripts that evaluate registrations.

A set is nirep (DIR/nirep/naNN.nii.gz with naNN_seg.nii.gz) or oasis (DIR/oasis30/Brains and
DIR/oasis30/MICCAI2012ChallengeLabels).
"""
import json
import pathlib
import subprocess
import sys

PAIRS = {"nirep": ["na02:na01", "na04:na03", "na06:na07", "na09:na01", "na01:na02", "na03:na04", "na07:na06", "na01:na09"],
         "oasis": ["1001:1000", "1002:1006", "1008:1007"]}


def add_arguments(parser):
    parser.add_argument("--cinnabar", type=pathlib.Path, default="build/cpu/cinnabar")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--set", choices=sorted(PAIRS), default="nirep")
    parser.add_argument("--pairs", nargs="*", help="MOVING:FIXED (default: the pairs of docs/results.md)")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, default=0, help="of each run (0: all)")


def chosen_pairs(args):
    return args.pairs or PAIRS[args.set]


def run(args, *command):
    """What the program prints."""
    words = [str(word) for word in (args.cinnabar, *command)]
    done = subprocess.run(words + ["--threads", str(args.threads)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}\n{done.stderr.strip()}")
    return done.stdout


class LabelledPair:
    """MOVING:FIXED of a set; results begin with `stem`."""

    def __init__(self, args, name):
        self.args, self.name = args, name
        moving, fixed = name.split(":")
        self.stem = args.out / f"{args.set}_{moving}_to_{fixed}"
        self.moving, self.moving_labels = self.files(moving)
        self.fixed, self.fixed_labels = self.files(fixed)

    def files(self, subject):
        if self.args.set == "nirep":
            return self.args.data / f"nirep/{subject}.nii.gz", self.args.data / f"nirep/{subject}_seg.nii.gz"
        oasis = self.args.data / "oasis30"
        return oasis / f"Brains/{subject}.nii.gz", oasis / f"MICCAI2012ChallengeLabels/{subject}.nii.gz"

    def dice(self, warped, transforms):
        """Mean over the regions, once the moving labels are warped by the transforms to the file `warped`."""
        chain = [word for transform in transforms for word in ("-t", transform)]
        run(self.args, "apply", "--input", self.moving_labels, "--reference", self.fixed, *chain, "--interpolation",
            "label", "--output", warped)
        ignored = ["--ignore", "33"] if self.args.set == "nirep" else []
        text = run(self.args, "measure", "--warped-labels", warped, "--fixed-labels", self.fixed_labels, "--json", *ignored)
        per_label = {one["label"]: one["dice"] for one in json.loads(text)["overlap"]["labels"]}
        if self.args.set == "oasis":  # the mask is the union of the labels, so only what lies inside it is a fair score
            per_label = {label: value for label, value in per_label.items() if label < 100}
        return sum(per_label.values()) / len(per_label)
