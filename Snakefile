"""recscale: from raw interaction logs to fitted scaling laws. Read the rules in the order below."""

from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/tasks.smk"
include: "workflow/rules/laws.smk"
include: "workflow/rules/figures.smk"


onstart:
    check_cluster()


onerror:
    print("\n".join(failed_runs()))


rule all:
    """The card of the data, every run, task, table, law and figure: a missing one is made again."""
    default_target: True
    input:
        card=f"{DATA}/card.json",
        runs=expand("{out}/runs/{run}/metrics.json", out=OUT, run=STUDY.runs),
        points=f"{OUT}/points.parquet",
        laws=expand("{out}/laws/{law}.json", out=OUT, law=STUDY.laws),
        figures=expand("{out}/figures/{figure}.png", out=OUT, figure=STUDY.figures),
        tasks=task_files(),
        task_table=[f"{OUT}/tasks.parquet"] * bool(STUDY.tasks),
        task_figures=expand("{out}/figures/{task}.png", out=OUT, task=STUDY.tasks),
