"""The first slips of somebody with a model of his own are told in one line that says what to do, never by a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "slips.py"

Outcomes = dict[str, list[str]]


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    """What came of every slip, made in a process of its own: in this one a wrong type is stopped by the tests' own checks."""
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found: Outcomes = json.loads(done.stdout)
    return found


def test_no_slip_ends_in_an_error_that_is_not_ours(outcomes: Outcomes) -> None:
    assert len(outcomes) > 100
    raw = {slip: told for slip, told in outcomes.items() if told[0].startswith("raw")}
    assert not raw


@pytest.mark.parametrize(
    ("came", "kind", "words"),
    [
        ("a network for a model", "CapabilityError", "needs a model, got an Own. Wrap it: latlas.from_module("),
        ("a name for a model", "CapabilityError", "Load it: latlas.load_model('zoo:digits-dense')"),
        ("nothing for a model", "CapabilityError", "needs a model, got None."),
        ("a tensor for images", "ImageFormatError", 'got a tensor of 60x1x8x8. Make one: latlas.ImageSet("a name", tensor)'),
        ("an array for images", "ImageFormatError", 'Make one: latlas.ImageSet("a name", torch.from_numpy(array))'),
        ("nothing for images", "ImageFormatError", "needs images as an ImageSet, got None."),
    ],
)
def test_every_question_tells_what_is_no_model_and_what_are_no_images(
    came: str, kind: str, words: str, outcomes: Outcomes
) -> None:
    told = {slip: outcome for slip, outcome in outcomes.items() if slip.endswith(f": {came}")}
    assert len(told) >= 10
    for slip, (found, text) in told.items():
        assert found == kind, slip
        assert words in text, slip


@pytest.mark.parametrize(
    ("slip", "kind", "words"),
    [
        ("a class for a network", "SettingError", "got the class Own itself. Of two functions make a latlas.CallableModel."),
        ("a function for a network", "SettingError", "A torch.nn.Module is wanted"),
        ("a range in words", "SettingError", "value_range takes (lowest, highest), as in (-1, 1); got -1,1."),
        ("a range of three", "SettingError", "got (0, 1, 2)."),
        ("a tensor for a function", "SettingError", "decode_with takes a function, got a Tensor."),
        ("a network to load", "SettingError", "got an Own. A network of your own is wrapped by latlas.from_module"),
        ("a tensor to load", "SettingError", 'got a Tensor. Of a tensor make an ImageSet: latlas.ImageSet("a name", tensor)'),
        ("a tensor to open", "SettingError", 'got a Tensor. Of a tensor make an ImageSet: latlas.ImageSet("a name", tensor)'),
        ("nothing to load", "SettingError", "A model is named by a folder, a Hub id or scheme:rest"),
        ("a word to fit on", "SettingError", "on indices of some, or on a Support Set; got 'half'."),
        ("an index beyond to fit on", "SettingError", "of own images[0:48] 0 to 47, got 0 to 48."),
        ("floats to fit on", "SettingError", "got a tensor of 20 (torch.float32)."),
        ("none to fit on", "IllPosedError", "No images to fit on were given."),
        ("landmarks that are images", "SettingError", "got an ImageSet. Make one: latlas.build_support_set("),
        ("a kind misspelt", "UnknownNameError", "Did you mean 'mixture'?"),
        ("no kind", "SettingError", "at least one kind to try"),
        ("features by name", "SettingError", "latlas.studies.features.feature_network('digits', images)"),
        ("features by name to compare by", "SettingError", "Features are taken by a network, got the text 'digits'."),
        ("features by name to judge by", "SettingError", "Features are taken by a network, got the text 'digits'."),
        ("a name for a recoder", "CapabilityError", "got the text 'runs/recoder'. Load it: latlas.load_model('runs/recoder')"),
        ("a network for features", "SettingError", "got a Flatten. Called with images it returns n x size features"),
        ("a budget by name", "SettingError", "is a latlas.Budget, as Budget(steps=60), got the text 'quick'."),
        ("a budget of half steps", "SettingError", "The steps of a budget must be a whole number, got 2.5."),
        ("a budget without end", "SettingError", "learning rate > 0"),
        ("half an epoch", "SettingError", "The epochs of a training must be a whole number, got 0.5."),
        ("a float of images a step", "SettingError", "The batch size of a training must be a whole number, got 32.0."),
        ("a learning rate in words", "SettingError", "must be a number, got '1e-3'."),
        ("no seed", "SettingError", "A seed is a whole number, got None."),
        ("a float for a seed", "SettingError", "A seed is a whole number, got 0.0."),
        ("a function for a callback", "SettingError", "For a function that is told how far the training is, use progress=."),
        ("a network for an architecture", "SettingError", "An architecture is a name (autoencoder-kl, conv, dense"),
        ("an objective by name", "SettingError", "as Objective(balance='fixed'), got the text 'fixed'."),
        ("a step of half", "SettingError", "The steps of a training must be a whole number, got 1.5."),
        ("a list to watch", "ImageFormatError", "as a tensor or an ImageSet; got a list of 2."),
    ],
)
def test_a_slip_in_a_setting_is_told_with_what_was_wanted(slip: str, kind: str, words: str, outcomes: Outcomes) -> None:
    found, text = outcomes[slip]
    assert found == kind
    assert words in text


@pytest.mark.parametrize(
    ("given", "came"),
    [
        ("images, shown", "<ImageSet 'own images': 60 images of 1x8x8 (torch.float32); .tensor(), .name_of(0)>"),
        ("codes, shown", "<Encoding of 'own images' by 'own': 60 means of 4; .mean, .log_variance>"),
        ("a seed of NumPy in a record", "'3'"),
        ("a list to fit on", "'own images[0:48][20 chosen]'"),  # and not all of them, as if nothing had been chosen
        ("a mask to fit on", "'own images[0:48][20 chosen]'"),
        ("a kind by itself", "['moments']"),
        ("a seed of NumPy", "'int'"),  # which an artifact can record
        ("a budget of NumPy", "'60'"),
        ("a callback by itself", "1"),
    ],
)
def test_what_can_only_mean_one_thing_is_taken_so(given: str, came: str, outcomes: Outcomes) -> None:
    assert outcomes[given] == ["", came]
