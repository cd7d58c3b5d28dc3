"""One module a study, with its `Study` as ``STUDY``; found by `simulator.reproduce.study_names`."""
