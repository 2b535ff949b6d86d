"""Every loader of latlas that takes what a stranger, a visitor or a dead process has left."""

from fuzzers.artifact_targets import ARTIFACT_TARGETS
from fuzzers.file_targets import FILE_TARGETS
from fuzzers.judging import Target
from fuzzers.picture_targets import PICTURE_TARGETS
from fuzzers.place_targets import PLACE_TARGETS

TARGETS: dict[str, Target] = {**ARTIFACT_TARGETS, **FILE_TARGETS, **PICTURE_TARGETS, **PLACE_TARGETS}
