"""One training is one run folder.

input:  results/data/<dataset>/ (sequences.parquet, stats.json)
output: results/<study>/runs/<run>/metrics.json; beside it, undeclared so that Snakemake keeps them
        when a job fails: model.safetensors, log.jsonl and, while it runs, the resume state last.pt
"""


rule train:
    """Train, choose the epoch on valid, evaluate once on test; continues where it was cut off."""
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
        ' --out "$(dirname {output:q})" --threads {threads} 2>&1 | tee {log:q}'
