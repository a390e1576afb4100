# Two commands: `make run` shows the product on this machine, `make test` runs every test. `make` lists the rest.
# What each does is in scripts/; all can be run twice, leave the host's own services alone, and end on Ctrl-C.
.PHONY: help run test check soak fuzz bench

help:
	@echo 'make run    installs what is missing, builds, and shows live guest figures through exporter, Prometheus and adapter;'
	@echo '           STORE=cassandra keeps them in a Cassandra node of its own'
	@echo 'make test   installs what the tests need, then runs all of them, against real libvirt, Prometheus and Cassandra'
	@echo 'make check  formatting, lints and the tests that need no services; quick, installs nothing'
	@echo 'make soak   all tests, with 200 kills of the adapter under load, 10 rounds of killed Cassandra nodes, 20 sleeps past a lease, 200 power losses, 200 full disks, 1,000 damaged files, 2,000 generated guests and 10,000 scrapes among guests that come and go, then ten minutes of each fuzz target'
	@echo 'make fuzz   damaged requests to decoders and use cases, 15 s a target'
	@echo 'make bench  what a sample costs the adapter and VictoriaMetrics, on its own store and on Cassandra, and a scrape the exporter: docs/benchmarks.md'

run:
	@scripts/run

test:
	@scripts/test

check:
	@scripts/check

soak:
	@KANYUN_CRASH_ROUNDS=200 KANYUN_SLEEPS=20 KANYUN_NODE_KILLS=10 KANYUN_POWER_LOSSES=200 KANYUN_FULL_DISKS=200 KANYUN_DAMAGES=1000 KANYUN_LEDGER_CASES=2000 KANYUN_SCRAPES=10000 scripts/test
	@scripts/fuzz 600

fuzz:
	@scripts/fuzz

bench:
	@scripts/bench
	@scripts/bench --exporter
	@scripts/bench --cassandra
	@scripts/bench --cassandra --report
	@scripts/bench --cassandra --fleet
