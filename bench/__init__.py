"""How the union compares: the same work on union filesystems, side by side.

`python -m bench --help` tells how to run it, docs/performance.md how to read it.
Nothing here is part of the product; the product imports nothing from here.

    command > rounds > measure > contenders, the workloads (trees, names, data, stacks, daemon)
            > goals, tables, plots > figures
"""
