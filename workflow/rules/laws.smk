"""All points in one table, and the laws fitted on it.

input:  results/<study>/runs/*/metrics.json, references.json
output: results/<study>/{points,curves}.{parquet,csv}, laws/<law>.json, laws/laws.csv
"""


rule collect:
    """One row a run; a point of another spec than the study's is refused."""
    input:
        runs=expand("{out}/runs/{run}/metrics.json", out=OUT, run=STUDY.runs),
        references=f"{OUT}/references.json",
        code=code("report/points"),
    output:
        f"{OUT}/points.parquet",
        f"{OUT}/curves.parquet",
        f"{OUT}/curves.csv",
        points=report(
            f"{OUT}/points.csv", caption="../report/points.rst", category="Points"
        ),
    log:
        f"{OUT}/logs/collect.log",
    localrule: True
    conda:
        "../../envs/recscale.yaml"
    params:
        study=STUDY_FILE,
        specs=sorted(run.spec() for run in STUDY.runs.values()),
        out=OUT,
    shell:
        "recscale collect {params.study:q} --runs {params.out:q}/runs"
        " --references {input.references:q} --out {params.out:q} 2>&1 | tee {log:q}"


rule fit:
    """Fit the laws of the study, hold out their largest x and predict them."""
    input:
        points=f"{OUT}/points.parquet",
        code=code("report/laws"),
    output:
        expand("{out}/laws/{law}.json", out=OUT, law=STUDY.laws),
        table=report(
            f"{OUT}/laws/laws.csv", caption="../report/laws.rst", category="Laws"
        ),
    log:
        f"{OUT}/logs/fit.log",
    localrule: True
    conda:
        "../../envs/recscale.yaml"
    params:
        study=STUDY_FILE,
        laws=sorted(law.text() for law in STUDY.laws.values()),
        recipe=LAW_RECIPE,
    shell:
        "recscale fit {params.study:q} --points {input.points:q}"
        ' --out "$(dirname {output.table:q})" 2>&1 | tee {log:q}'
