"""What is evaluated without a training of its own.

input:  results/data/<dataset>/
output: results/<study>/references.json (item popularity, first-order Markov)
"""


rule references:
    """Two lines that every trained model should beat."""
    input:
        sequences=f"{DATA}/sequences.parquet",
        stats=f"{DATA}/stats.json",
        code="src/recscale/references.py",
    output:
        f"{OUT}/references.json",
    log:
        f"{OUT}/logs/references.log",
    conda:
        "../../envs/recscale.yaml"
    shell:
        'recscale task references --data "$(dirname {input.stats:q})" --out {output:q}'
        " 2>&1 | tee {log:q}"
