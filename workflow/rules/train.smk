"""One training is one run folder.

input:  results/data/<dataset>/ (sequences.parquet, stats.json)
output: results/<study>/runs/<run>/metrics.json; beside it, undeclared so that Snakemake keeps them
        when a job fails: model.safetensors, log.jsonl and, while it runs, the resume state
        (last.safetensors, best-*.safetensors) and the claim of the process that trains (running.json);
        failures.json and failed.json where trainings failed
"""


rule train:
    """Train, choose the epoch on valid, evaluate once on test; continues where it was cut off.

    Asked to stop, it saves and ends with 75. A point that another process has finished meanwhile is kept.
    """
    input:
        sequences=f"{DATA}/sequences.parquet",
        stats=f"{DATA}/stats.json",
    output:
        update(f"{OUT}/runs/{{run}}/metrics.json"),  # or a job that waited for another would remove its point
    log:
        f"{OUT}/logs/train/{{run}}.log",
    priority: cost_of
    retries: RETRIES
    conda:
        "../../envs/recscale.yaml"
    threads: 1
    resources:
        mem_mb=memory,
        runtime=minutes,
        gpu=gpus,
        gres=gres,
        nodes=nodes,
        processes=processes,
    params:
        spec=spec,
    shell:
        'recscale train --spec {params.spec:q} --data "$(dirname {input.stats:q})"'
        ' --out "$(dirname {output:q})" --threads {threads} --processes {resources.processes}'
        " --log {log:q}"
