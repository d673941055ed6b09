"""Figures, from tables alone: no run is opened, no GPU is needed.

input:  results/<study>/{points,curves}.parquet, references.json, laws/*.json
output: results/<study>/figures/<figure>.{png,pdf,csv}
"""


rule plot:
    """Draw one figure; the CSV beside it holds what is drawn."""
    input:
        points=f"{OUT}/points.parquet",
        curves=f"{OUT}/curves.parquet",
        references=f"{OUT}/references.json",
        laws=expand("{out}/laws/{law}.json", out=OUT, law=STUDY.laws),
        code=code("report/figures/study"),
    output:
        f"{OUT}/figures/{{figure}}.pdf",
        f"{OUT}/figures/{{figure}}.csv",
        png=report(
            f"{OUT}/figures/{{figure}}.png",
            caption="../report/figures.rst",
            category="Figures",
        ),
    log:
        f"{OUT}/logs/plot/{{figure}}.log",
    localrule: True
    conda:
        "../../envs/recscale.yaml"
    params:
        study=STUDY_FILE,
        out=OUT,
    shell:
        "recscale plot {params.study:q} {wildcards.figure:q} --results {params.out:q}"
        " --out {output.png:q} 2>&1 | tee {log:q}"
