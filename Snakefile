# A campaign as a DAG: environment -> profile -> plan -> train -> summary -> report -> expectations.
#
#   snakemake --cores 2                                       config/quick.yaml on this machine
#   snakemake --cores 2 --configfile my-campaign.yaml         another campaign
#   snakemake --profile slurm                                 on a cluster
#
# The rules are those of the package: hpc_lpm/campaign/rules/campaign.smk. A folder of one's own
# includes the same ones (`hpc-lpm init`).

import sys
from pathlib import Path

# The rules use this checkout, whichever directory they run in.
REPOSITORY = Path(workflow.basedir)
sys.path.insert(0, str(REPOSITORY))

from hpc_lpm.campaign.workflow import RULES, put_first

put_first("PYTHONPATH", REPOSITORY)


module campaign:
    snakefile:
        RULES
    config:
        {
            "campaign": REPOSITORY / "config" / "quick.yaml",
            # For those who let conda provide the software.
            "software": str(REPOSITORY / "config" / "environment" / "conda.yaml"),
        }


use rule * from campaign


# Snakemake calls no handler of a module by itself.
onstart:
    campaign.onstart()


onerror:
    campaign.onerror()
