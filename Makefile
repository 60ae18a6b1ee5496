# make run    set up if needed, then the quick campaign on two ranks, down to its report
# make test   set up if needed, then all tests
# make setup  the virtual environment in .venv and the Horovod wheel, once; tries again what was left out
# make lint   formatting, lint and types
# make lock   lock what pyproject.toml asks for, with hashes; LOCK_ARGS=--upgrade takes the newest versions
# make docs   the documents as pages, into docs/_build/html
# make bench  the race: six contestants on resnet110, vgg16 and gpt (two cores), on 8 and 16 emulated
#             devices, and by root on two nodes at 1 Gbit/s; every contestant tuned, one report
#             (results/bench/report.html); about 110 minutes on two idle cores
# make bench-full  the same with all contestants; goes on where it was stopped; about 4 hours
# make bench-engine  how near FBP comes to the machine's limit and its plan, on emulated devices,
#                    and its memory (results/reference/engine); about 25 minutes on two idle cores
# make bench-planner  time and memory of the planner, what it and its rivals find on the same layer
#                    times, and predictions beside measured periods, of its plans and of 60 random
#                    runs (results/reference/planner); about 25 minutes on two idle cores
# make bench-cluster  FBP and its rivals on two nodes with 1 Gbit/s and 200 Mbit/s between them, on a
#                    Slurm cluster that it starts (results/reference/cluster); needs root, a little over an hour
# make bench-own-models  what capture and random numbers cost, and the guide's networks in two stages
#                    against one device (results/reference/own-models); about 15 minutes on two idle cores
# make bench-script  FBP from a script of one's own beside the command hpc-lpm train: rates and weights
#                    (results/reference/script); about 5 minutes on two idle cores
# make bench-delay  what the depth of a pipeline costs per step and what corrections win back, in one
#                    process a training (results/reference/delay); at most 90 minutes on two idle cores
# make bench-delay-full  the same over stages, micro-batches, rates and seeds, in parts of at most two
#                    hours, each of which goes on where it was stopped; at most 12 core hours
# make bench-scale  simulated rates of every schedule on 2 to 1,024 stages with 4 to 4,096 micro-batches,
#                    with and without jitter, and the time of a simulation and of a plan at that size
#                    (results/reference/scale); about 15 minutes on one idle core
# make bench-advise  whether the strategy that hpc-lpm advise puts first is the fastest, in 12 cases on
#                    emulated devices and real cores (results/reference/advice); about 45 minutes on
#                    two idle cores
# make faults  what every fault does to a run, and the seconds until it has ended and goes on again,
#                    on two ranks and by root on two nodes (results/reference/reliability); about 10
#                    minutes
# make soak   an hour of FBP on two ranks with a save a minute and a fault every three, then the same
#             without faults: two hours, of which the second trains (results/reference/reliability)
# make zoo    captures many architectures, cuts each into 4 stages and compares it with the original,
#             bit for bit (docs/reference/models.md); a few minutes
# make clean  remove what the campaigns and the tests left (not the committed reference)

SHELL := /bin/bash
CONFIG ?= config/quick.yaml
PYTEST_ARGS ?=
LOCK_ARGS ?=
ENGINE := results/reference/engine
PLANNER := results/reference/planner
CLUSTER := results/reference/cluster
OWN_MODELS := results/reference/own-models
SCRIPT := results/reference/script
DELAY := results/reference/delay
SCALE := results/reference/scale
ADVICE := results/reference/advice
RELIABILITY := results/reference/reliability
SOAK_MINUTES ?= 60

.PHONY: run test setup lock environment environment-for-tests docs bench bench-full bench-engine bench-planner bench-cluster bench-own-models bench-script bench-delay bench-delay-full bench-scale bench-advise faults soak zoo lint clean

# What an interrupted run left unfinished is made again. The campaign has a lock of its own, which ends
# with its driver; Snakemake's would stay.
run: environment
	.venv/bin/snakemake --cores 2 --configfile "$(CONFIG)" --rerun-incomplete --nolock --quiet host reason rules

# Tests start thousands of processes, each of which would compile the package anew where Python is told
# to write no bytecode.
test: environment-for-tests
	./config/environment/system_packages.sh
	.venv/bin/python -m compileall -q -x study/template hpc_lpm
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder \
		--durations=10 $(PYTEST_ARGS)

setup:
	@./config/environment/setup.sh

# What runs campaigns goes on without Horovod, once it could not be built; the tests need it.
environment:
	@./config/environment/setup.sh --no-retry

environment-for-tests:
	@./config/environment/setup.sh --require-horovod

# Set-up comes after it, not before: what was locked may no longer fit what is asked for.
lock:
	python3 config/environment/lock.py $(LOCK_ARGS)

docs: environment
	.venv/bin/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html

bench: environment
	.venv/bin/python -m benchmarks.bench --out results/bench

bench-full: environment
	.venv/bin/python -m benchmarks.bench --full --out results/bench-full

bench-engine: environment
	.venv/bin/python -m benchmarks.engine --out "$(ENGINE)"
	.venv/bin/python -m benchmarks.emulated --out "$(ENGINE)"
	.venv/bin/python -m benchmarks.memory --model resnet110 --dataset digits,size=32 \
		--out "$(ENGINE)/memory-resnet110"
	.venv/bin/python -m benchmarks.memory --model vgg16 --dataset digits,size=32 --stages 4 \
		--batch-size 64 --micro-batches 4 --out "$(ENGINE)/memory-vgg16"

bench-planner: environment
	.venv/bin/python -m benchmarks.planner --out "$(PLANNER)"
	.venv/bin/python -m benchmarks.prediction --out "$(PLANNER)"
	.venv/bin/python -m benchmarks.predicted_runs --out "$(PLANNER)"

bench-cluster: environment
	.venv/bin/python -m benchmarks.cluster --out "$(CLUSTER)"

bench-own-models: environment-for-tests
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.captured --out "$(OWN_MODELS)"
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.random_numbers --out "$(OWN_MODELS)"
	.venv/bin/python -m benchmarks.guide --out "$(OWN_MODELS)"

bench-script: environment
	.venv/bin/python -m benchmarks.script --out "$(SCRIPT)"

bench-delay: environment
	.venv/bin/python -m benchmarks.delay --part emulated --part short --out "$(DELAY)"

bench-delay-full: environment
	.venv/bin/python -m benchmarks.delay --part rates --out "$(DELAY)"
	.venv/bin/python -m benchmarks.delay --part depths --out "$(DELAY)"
	.venv/bin/python -m benchmarks.delay --part targets --out "$(DELAY)"
	.venv/bin/python -m benchmarks.delay --part shallow --part policies --part rules \
		--part asynchronous --out "$(DELAY)"

bench-scale: environment
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.scale --out "$(SCALE)"
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.arrival_order --out "$(SCALE)"

bench-advise: environment-for-tests
	OMP_NUM_THREADS=1 .venv/bin/python -m benchmarks.advice --out "$(ADVICE)"

faults: environment-for-tests
	mkdir -p $(RELIABILITY)
	rm -f $(RELIABILITY)/faults.jsonl
	OMP_NUM_THREADS=1 HPC_LPM_FAULT_LINES=$(abspath $(RELIABILITY))/faults.jsonl .venv/bin/python -m pytest -q \
		-p no:xdist tests/faults tests/soak tests/slurm/test_faults_on_cluster.py
	.venv/bin/python -m tests.faults.outcomes $(RELIABILITY)/faults.jsonl $(RELIABILITY)/faults.md

soak: environment-for-tests
	mkdir -p $(RELIABILITY)
	.venv/bin/python -m tests.soak.soak --minutes $(SOAK_MINUTES) --out results/soak | tee $(RELIABILITY)/soak.json

zoo: environment-for-tests
	OMP_NUM_THREADS=1 .venv/bin/python -m tests.models.zoo

lint: environment
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/snakefmt --check Snakefile hpc_lpm

clean:
	rm -rf docs/_build .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find results -mindepth 1 -maxdepth 1 ! -name reference -exec rm -rf {} +
