"""Raw archive to sequences.

input:  config/datasets.yaml (sources, checksums, expected counts)
output: results/data/<dataset>/source.json, sequences.parquet, items.parquet, stats.json,
        card.{json,png,pdf,csv}; beside them, undeclared, rejected.parquet where rows were rejected
"""


rule fetch:
    """Find or download the files, check them by checksum."""
    output:
        f"{DATA}/source.json",
    log:
        f"{DATA}/logs/fetch.log",
    localrule: True
    conda:
        "../../envs/recscale.yaml"
    resources:
        raw=RAW,
    params:
        dataset=STUDY.dataset,
        # Where the archives lie changes no number: moving them should plan nothing, so it is a resource,
        # which is no reason to run again. The constant stands in the records of folders made before.
        raw="raw",
        sources=entry("sources"),
    shell:
        "recscale fetch {params.dataset:q} --raw {resources.raw:q} --out {output:q} 2>&1 | tee {log:q}"


rule prepare:
    """Filter, order, split and number the interactions (design: LSRM, section III).

    Neither memory nor threads change the output.
    """
    input:
        f"{DATA}/source.json",
    output:
        sequences=f"{DATA}/sequences.parquet",
        item_table=f"{DATA}/items.parquet",
        stats=f"{DATA}/stats.json",
    log:
        f"{DATA}/logs/prepare.log",
    conda:
        "../../envs/recscale.yaml"
    threads: 8
    resources:
        mem_mb=config.get("max_memory", 2000),
    params:
        dataset=STUDY.dataset,
        out=DATA,
        filters=entry(),
        recipe=study.PREPARE_RECIPE,
    shell:
        "POLARS_MAX_THREADS={threads} recscale prepare {params.dataset:q} --source {input:q}"
        " --out {params.out:q} --max-memory {resources.mem_mb}MB"
        " 2>&1 | tee {log:q}"


rule card:
    """Say what is in the data: lengths, popularity, times, repeats, entropies."""
    input:
        sequences=f"{DATA}/sequences.parquet",
        item_table=f"{DATA}/items.parquet",
        stats=f"{DATA}/stats.json",
        code=code("next_item/card", "report/figures/card"),
    output:
        f"{DATA}/card.png",
        f"{DATA}/card.pdf",
        f"{DATA}/card.csv",
        card=f"{DATA}/card.json",
    log:
        f"{DATA}/logs/card.log",
    localrule: True
    conda:
        "../../envs/recscale.yaml"
    shell:
        'recscale card --data "$(dirname {input.stats:q})" --out "$(dirname {output.card:q})"'
        " 2>&1 | tee {log:q}"
