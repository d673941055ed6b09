"""What is evaluated without a training of its own.

input:  results/data/<dataset>/; results/<study>/runs/<run>/ (metrics.json, model.safetensors)
output: results/<study>/references.json (item popularity, first-order Markov),
        tasks/<task>/<run>.{json,parquet}, tasks.{parquet,csv}, figures/<task>.{png,pdf,csv}
"""


wildcard_constraints:
    task="|".join(study.TASKS),


rule references:
    """Two lines that every trained model should beat."""
    input:
        sequences=f"{DATA}/sequences.parquet",
        stats=f"{DATA}/stats.json",
        code=code("next_item/references"),
    output:
        f"{OUT}/references.json",
    log:
        f"{OUT}/logs/references.log",
    conda:
        "../../envs/recscale.yaml"
    shell:
        'recscale task references --data "$(dirname {input.stats:q})" --out {output:q}'
        " 2>&1 | tee {log:q}"


rule task:
    """One task of one trained run: a value a case, and a mean a cell."""
    input:
        run=f"{OUT}/runs/{{run}}/metrics.json",
        sequences=f"{DATA}/sequences.parquet",
        item_table=f"{DATA}/items.parquet",
        stats=f"{DATA}/stats.json",
    output:
        f"{OUT}/tasks/{{task}}/{{run}}.parquet",
        record=f"{OUT}/tasks/{{task}}/{{run}}.json",
    log:
        f"{OUT}/logs/tasks/{{task}}/{{run}}.log",
    conda:
        "../../envs/recscale.yaml"
    threads: 1
    params:
        recipe=study.TASK_RECIPE,
    shell:
        'recscale task {wildcards.task} --run "$(dirname {input.run:q})"'
        ' --data "$(dirname {input.stats:q})" --out {output.record:q} --threads {threads}'
        " 2>&1 | tee {log:q}"


rule collect_tasks:
    """One row a task, run, cell and metric, with intervals and changes."""
    input:
        tasks=task_files(),
        code=code("next_item/tasks/table"),
    output:
        f"{OUT}/tasks.parquet",
        table=report(
            f"{OUT}/tasks.csv", caption="../report/tasks.rst", category="Tasks"
        ),
    log:
        f"{OUT}/logs/collect_tasks.log",
    localrule: True
    conda:
        "../../envs/recscale.yaml"
    params:
        study=STUDY_FILE,
        out=OUT,
    shell:
        "recscale collect {params.study:q} --tasks {params.out:q}/tasks --out {params.out:q}"
        " 2>&1 | tee {log:q}"


rule plot_task:
    """Draw the figure of one task; the CSV beside it holds what is drawn."""
    input:
        tasks=f"{OUT}/tasks.parquet",
        code=code("report/figures/tasks"),
    output:
        f"{OUT}/figures/{{task}}.pdf",
        f"{OUT}/figures/{{task}}.csv",
        png=report(
            f"{OUT}/figures/{{task}}.png",
            caption="../report/tasks.rst",
            category="Tasks",
        ),
    log:
        f"{OUT}/logs/plot/{{task}}.log",
    localrule: True
    conda:
        "../../envs/recscale.yaml"
    params:
        study=STUDY_FILE,
        out=OUT,
    shell:
        "recscale plot {params.study:q} {wildcards.task:q} --results {params.out:q}"
        " --out {output.png:q} 2>&1 | tee {log:q}"
