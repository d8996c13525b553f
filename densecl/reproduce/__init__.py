"""Tables of papers, repeated: `densecl reproduce PAPER:TABLE`.

Each table is a file `results/plans/PAPER/TABLE.toml`: a plan of `densecl sweep` that also says what it repeats.

    published = "disalvo"                  # the file in results/published, and the names of its tables
    tables = ["Table 3"]
    benchmarks = ["voc-disalvo15-5"]

    [small]                                # what these keys are under --small
    benchmarks = ["shapes15-5"]
    set = ["training.iterations=100"]

    [[runs]]
    strategies = ["mib+deepinversion(replay_loss=kl)"]
    repeats = { variant = "loss KL" }      # values of the published rows that these runs repeat
    small.strategies = ["mib+deepinversion(replay_loss=kl, iterations=20)"]

    [[not_repeated]]
    rows = { variant = "loss L1" }         # published rows that no run repeats; without it, something else of the paper
    why = "segmentation is learnt by cross-entropy here"

A run repeats the published rows of its method, split, backbone and settings, as far as plan and row both name them,
if they have the values of `repeats`. Under `--small` each list of names is as long as in the plan.
"""
