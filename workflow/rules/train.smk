"""One training is one run folder.

input:  results/data/<dataset>/ (sequences.parquet, stats.json)
output: results/<study>/runs/<run>/metrics.json; beside it, undeclared so that Snakemake keeps them
        when a job fails: model.safetensors, log.jsonl and, while it runs, the resume state
        (last.safetensors, best-*.safetensors) and the claim of the process that trains (running.json)
"""


rule train:
    """Train, choose the epoch on valid, evaluate once on test; continues where it was cut off.

    Asked to stop, it saves and ends with 75; tee, which gets the same signal, waits for its last line.
    """
    input:
        sequences=f"{DATA}/sequences.parquet",
        stats=f"{DATA}/stats.json",
    output:
        f"{OUT}/runs/{{run}}/metrics.json",
    log:
        f"{OUT}/logs/train/{{run}}.log",
    priority: cost
    conda:
        "../../envs/recscale.yaml"
    threads: 1
    params:
        spec=spec,
    shell:
        'recscale train --spec {params.spec:q} --data "$(dirname {input.stats:q})"'
        ' --out "$(dirname {output:q})" --threads {threads} 2>&1'
        " | (trap '' INT TERM; exec tee {log:q})"
