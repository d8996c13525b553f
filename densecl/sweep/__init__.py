"""Many runs from one plan: `densecl sweep PLAN.toml`.

A plan is a grid, and what stands beside it:

    benchmarks = ["shapes15-5"]            # benchmarks x strategies x backbones x seeds x settings x grid
    strategies = ["finetune", "lwf", "mib+replay(memory=100)"]
    backbones = ["unet", "bisenet(encoder=mini)"]       # else the benchmark's own
    seeds = [0, 1, 2]                      # else 0
    set = ["training.batch=8"]             # of every run, as `--set`; or a table: [set] training.batch = 8

    [grid]                                 # each key an axis
    training.lr = [0.01, 0.001]
    training.augmentation = ["flip", "none"]

    [[settings]]                           # values that belong together; each block is one value of one axis
    backbone = "bisenet(encoder=resnet50)"
    set = ["training.batch=16", "training.lr=0.025"]
    reported = 48.0                        # what a paper prints, to be read beside ours

    [[runs]]                               # further runs: what a block does not say is as above,
    strategies = ["joint"]                 # but for `grid` and `settings`, which are the block's own

    [slurm]                                # what each run asks for under `--engine slurm`
    time = "4:00:00"
    gpus = 1

A plan, a block of `settings` and one of `runs` may also give `weights`, `validation` and `precision`, as the options of
`densecl run`; a plan `data`, `device`, `workers` and `catalogue` as well, which the command line overrules. Paths are
seen from the working folder. `[local]` holds `jobs` and `threads`; `engine` is what `--engine` says.
"""
