# `make` alone explains the targets; CI calls the same ones.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ORDERS ?=
RATE ?=
REPORT ?=
ROUNDS ?=
SEED ?=
MINUTES ?=
SECONDS ?= 600
CHANNEL ?=
ONLY ?=
COMPILED ?=
PEERS ?=
TIMES ?=
PAIRS ?=
A ?= HEAD~1
B ?= HEAD

.DEFAULT_GOAL := help
.PHONY: help setup demo compiled test test-fast test-compiled fuzz audit lint format types texts lock bench compare simulate soak recovery faults clean

help: ## 说明各目标 · what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'
	@echo
	@echo '  make demo ORDERS=5000 RATE=100 REPORT=report.json'

setup: $(VENV)/.ready ## 按锁定文件建立 .venv · make .venv from the lock file

$(VENV)/.ready: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo '缺少 Python 3.11+：apt-get install python3 python3-venv · Python 3.11+ is missing'; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo '需要 Python 3.11+，可用 make PYTHON=python3.12 · Python 3.11+ is needed: make PYTHON=python3.12'; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo '缺少 venv：apt-get install python3-venv · venv is missing: apt-get install python3-venv'; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## 模拟一次直播大促 · simulated shops, a real Kafka, every incident of the articles
	@$(BIN)/orderstream demo $(if $(ORDERS),--orders $(ORDERS)) $(if $(RATE),--rate $(RATE)) $(if $(REPORT),--report $(REPORT))

# every test that starts a process of ours would compile all of it again
test test-fast test-compiled: export PYTHONDONTWRITEBYTECODE =

test: setup ## 全部测试，含真实 Kafka · the whole suite, on a real broker too
	$(BIN)/pytest -n 2 --durations=15

test-fast: setup ## 不需要 Kafka 的测试 · the tests that need no broker
	$(BIN)/pytest -n 2 -m 'not stream'

compiled: setup ## 可选：把各步编译成 C（需要 C 编译器）· the hops as C, for who wants it: a wheel, and a tree for tests and bench
	rm -rf build/compiled build/wheels build/lib.*
	COMPILE_HOPS=1 $(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheels .
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target build/compiled build/wheels/orderstream-*.whl
	cp -r bench deploy docs rules schemas tests pyproject.toml build/compiled/

test-compiled: compiled ## 编译版与纯 Python 逐字节相同 · the compiled hops say what the plain ones say, to the byte
	cd build/compiled && PYTHONPATH=$$PWD PLAIN_TREE=$(CURDIR) ../../$(BIN)/python -m pytest -n 2 \
	  tests/kernel tests/rules tests/catalogue tests/channels tests/stream

lint: setup ## ruff 检查与格式 · ruff's rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## 自动排版 · format in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup ## mypy --strict
	$(BIN)/mypy

audit: setup ## 依赖的已知漏洞、代码安全规则 · known holes in the lock, security rules of the code
	$(BIN)/ruff check --select S --ignore S101 .
	$(BIN)/pip check
	$(BIN)/python .ci/audit

fuzz: setup ## 对每个渠道模糊测试 · search every channel for what breaks it; SECONDS a channel (600), CHANNEL=api for one
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS) $(if $(CHANNEL),--channel $(CHANNEL))

faults: setup ## 每种故障 20 轮，可分次跑 · twenty rounds of every fault, in as many runs as you like: ROUNDS= MINUTES= SEED=
	@$(BIN)/python -m tests.faults $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

bench: setup $(if $(COMPILED),compiled) ## 全部性能数字，一张表 · every figure of speed in one table: ORDERS= ONLY=reference,pack PEERS=folder TIMES= COMPILED=1
	@$(BIN)/python -m bench $(if $(ORDERS),--orders $(ORDERS)) $(if $(ONLY),--only $(ONLY)) $(if $(PEERS),--peers $(PEERS)) $(if $(COMPILED),--compiled) $(if $(TIMES),--times $(TIMES))

compare: setup ## 两个提交谁更慢，逐对比较 · is commit B slower than A, pair by pair; exit 1 if so: A= [B=HEAD] PAIRS=
	@$(BIN)/python -m bench.compare $(A) $(B) $(if $(PAIRS),--pairs $(PAIRS))

simulate: setup ## 规模与费用推演 · how many machines a shop needs, and what breaks first: docs/scaling.md's figures
	@$(BIN)/python -m bench.simulate --svg docs/scaling.svg

soak: setup ## 一小时半负荷，内存是否平稳 · an hour at half capacity: is memory flat; MINUTES=10 for a short one, RATE=
	@$(BIN)/python -m bench.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(RATE),--rate $(RATE))

recovery: setup ## 带一整天状态重启要多久 · a worker restarted with a day of state; ORDERS= (1000000)
	@$(BIN)/python -m bench.recovery $(if $(ORDERS),--orders $(ORDERS))

texts: setup ## 看板的新文字收入译文表 · bring new texts of the board into its Chinese catalogue
	@mkdir -p build
	$(BIN)/pybabel -q extract -F orderstream/board/web/locale/babel.cfg -k N_ --no-location -o build/board.pot orderstream/board/web
	$(BIN)/pybabel -q update -D board -l zh -i build/board.pot -o orderstream/board/web/locale/zh/board.po --no-fuzzy-matching --omit-header

lock: ## 重新生成锁定文件（需要 uv）· write the lock file anew (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --quiet --extra dev pyproject.toml --output-file requirements.lock

clean: ## 删除生成物 · remove what was made here
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
